// qmp_words.h: what QEMU says, whatever that is: it may be owned by its guest.
// Knows: JSON. Does not know: commands. Threads: any.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace sluicebox::box {

// One line; not an object when it is none. What lies deeper than any answer of QEMU's is left out: to copy or destroy a
// value takes stack for each level of it.
nlohmann::json qmp_message(const std::string& line);
// Empty where there is no such text.
std::string text_at(const nlohmann::json& object, const char* key);

}  // namespace sluicebox::box

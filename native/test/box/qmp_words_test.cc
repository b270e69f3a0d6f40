#include "box/qmp_words.h"

#include <doctest/doctest.h>

#include <string>

namespace sluicebox::box::test {

TEST_CASE("a line of QEMU's is an object or nothing, and never deeper than can be copied") {
  CHECK(text_at(qmp_message(R"({"event":"STOP","data":{}})"), "event") == "STOP");
  for (const char* line : {"", "[]", "7", "\"event\"", "{", "{]", "nonsense"}) CHECK(!qmp_message(line).is_object());
  CHECK(text_at(qmp_message(R"({"event":7})"), "event").empty());
  CHECK(text_at(nlohmann::json::array(), "event").empty());

  const int levels = 400'000;
  const std::string deep =
      R"({"event":"X","data":)" + std::string(levels, '[') + std::string(levels, ']') + R"(,"more":"said"})";
  const nlohmann::json message = qmp_message(deep);
  const nlohmann::json copy = message;
  CHECK(text_at(copy, "event") == "X");
  CHECK(text_at(copy, "more") == "said");
}

}  // namespace sluicebox::box::test

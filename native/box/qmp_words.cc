#include "box/qmp_words.h"

namespace sluicebox::box {

using nlohmann::json;

namespace {

constexpr int kDeepest = 32;

}  // namespace

json qmp_message(const std::string& line) {
  const auto keep = [](int depth, json::parse_event_t, json&) { return depth <= kDeepest; };
  json message = json::parse(line, keep, false);
  return message.is_object() ? message : json();
}

std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace sluicebox::box

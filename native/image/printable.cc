#include "image/printable.h"

namespace sluicebox::image {

namespace {

constexpr std::size_t kLongestShown = 1024;

}  // namespace

std::string printable(std::string_view name) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = "'";
  for (const char character : name.substr(0, kLongestShown)) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7f) {
      text += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else if (character == '\\' || character == '\'') {
      text += {'\\', character};
    } else {
      text += character;
    }
  }
  if (name.size() > kLongestShown) text += "...";
  return text + "'";
}

}  // namespace sluicebox::image

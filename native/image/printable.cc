#include "image/printable.h"

#include <algorithm>

namespace sluicebox::image {

namespace {

constexpr std::size_t kLongestShown = 1024;

// The length of the UTF-8 character at the start of `text`; 0 when there is none.
std::size_t character_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (length == 0 || first > 0xf4 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

// Terminals obey C1 controls, and marks of direction and line ends make a message read as another.
bool misleads(std::string_view character) {
  using std::string_view_literals::operator""sv;
  return (character >= "\xc2\x80"sv && character <= "\xc2\x9f"sv) || character == "\xd8\x9c"sv ||
         (character >= "\xe2\x80\x8b"sv && character <= "\xe2\x80\x8f"sv) ||
         (character >= "\xe2\x80\xa8"sv && character <= "\xe2\x80\xae"sv) ||
         (character >= "\xe2\x81\xa0"sv && character <= "\xe2\x81\xaf"sv) || character == "\xef\xbb\xbf"sv;
}

}  // namespace

std::string printable(std::string_view name) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = "'";
  for (std::string_view rest = name.substr(0, kLongestShown); !rest.empty();) {
    const std::size_t length = character_length(rest);
    const std::string_view character = rest.substr(0, std::max<std::size_t>(length, 1));
    rest.remove_prefix(character.size());
    const auto byte = static_cast<unsigned char>(character[0]);
    if (length == 0 || byte < 0x20 || byte == 0x7f || misleads(character)) {
      for (const char each : character) {
        const auto value = static_cast<unsigned char>(each);
        text += {'\\', 'x', kHex[value >> 4], kHex[value & 15]};
      }
    } else {
      if (byte == '\\' || byte == '\'') text += '\\';
      text += character;
    }
  }
  if (name.size() > kLongestShown) text += "...";
  return text + "'";
}

}  // namespace sluicebox::image

#include "image/guid.h"

#include <sys/random.h>

#include <cerrno>

namespace sluicebox::image {

namespace {

constexpr std::size_t kOrder[2][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                       {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}};
constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

Result<Guid> random_guid() {
  Guid guid;
  if (::getrandom(guid.data(), guid.size(), 0) != static_cast<ssize_t>(guid.size())) {
    return os_error(errno, "cannot make an id for the image");
  }
  // The version's nibble is the third group's first, which VHDX stores last of its two bytes; no reader looks at it.
  guid[6] = (guid[6] & std::byte{0x0f}) | std::byte{0x40};
  guid[8] = (guid[8] & std::byte{0x3f}) | std::byte{0x80};
  return guid;
}

std::string guid_text(const Guid& guid, bool little_endian) {
  std::string text;
  for (std::size_t i = 0; i < guid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    const auto byte = std::to_integer<unsigned>(guid[kOrder[little_endian ? 1 : 0][i]]);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::optional<Guid> guid_from_text(std::string_view text, bool little_endian) {
  Guid guid = {};
  std::size_t at = 0;
  for (std::size_t i = 0; i < guid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) ++at;
    if (at + 2 > text.size()) return std::nullopt;
    const std::size_t high = kDigits.find(text[at]);
    const std::size_t low = kDigits.find(text[at + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
    guid[kOrder[little_endian ? 1 : 0][i]] = static_cast<std::byte>(high << 4 | low);
    at += 2;
  }
  if (guid_text(guid, little_endian) != text) return std::nullopt;
  return guid;
}

}  // namespace sluicebox::image

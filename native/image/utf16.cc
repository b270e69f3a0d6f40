#include "image/utf16.h"

#include <algorithm>

namespace sluicebox::image {

namespace {

void append_utf8(std::string& out, std::uint32_t code) {
  const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// The code point at `at`, which moves behind it; nothing for overlong, cut or stray bytes.
std::optional<std::uint32_t> take_code(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at++);
  if (first < 0x80) return first;
  const unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  if (first < 0xc2 || first > 0xf4 || text.size() - at < more) return std::nullopt;
  std::uint32_t code = first & (0x3fu >> more);
  for (unsigned i = 0; i < more; ++i) {
    if ((byte(at) & 0xc0) != 0x80) return std::nullopt;
    code = code << 6 | (byte(at++) & 0x3f);
  }
  constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  if (code < kLeast[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return std::nullopt;
  return code;
}

bool is_letter(char character) {
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z');
}

std::string without_dot(std::string path) {
  while (path.starts_with("./")) path.erase(0, path.find_first_not_of('/', 1));
  return path;
}

}  // namespace

std::optional<std::string> utf8_of_utf16(Bytes text, bool big_endian) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += 2) {
    const auto unit = [&](std::size_t i) { return detail::load<std::uint16_t>(text.data() + i, big_endian); };
    std::uint32_t code = unit(at);
    if (code == 0) break;
    if (code >= 0xdc00 && code < 0xe000) return std::nullopt;
    if (code >= 0xd800 && code < 0xdc00) {
      at += 2;
      if (at >= text.size()) return std::nullopt;
      const std::uint32_t low = unit(at);
      if (low < 0xdc00 || low >= 0xe000) return std::nullopt;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(out, code);
  }
  return out;
}

std::optional<std::vector<std::byte>> utf16_of_utf8(std::string_view text, bool big_endian) {
  std::vector<std::byte> out;
  const auto put = [&](std::uint32_t unit) {
    out.resize(out.size() + 2);
    detail::store(out.data() + out.size() - 2, static_cast<std::uint16_t>(unit), big_endian);
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::optional<std::uint32_t> code = take_code(text, at);
    if (!code) return std::nullopt;
    if (*code < 0x10000) {
      put(*code);
    } else {
      put(0xd800 + ((*code - 0x10000) >> 10));
      put(0xdc00 + ((*code - 0x10000) & 0x3ff));
    }
  }
  return out;
}

std::string path_of_windows(std::string path) {
  std::ranges::replace(path, '\\', '/');
  // "//?/C:/…", "//?/Volume{…}/…", "//server/…" and "C:…" begin in a place that only Windows knows.
  const bool of_drive = path.size() >= 2 && is_letter(path[0]) && path[1] == ':';
  if (of_drive || path.starts_with("//")) path = path.substr(path.find_last_of("/:") + 1);
  return without_dot(std::move(path));
}

std::optional<std::string> windows_of_path(const std::string& path) {
  if (path.empty() || path.find_first_of(std::string_view("\\\0", 2)) != std::string::npos) return std::nullopt;
  const bool has_start = path.starts_with('/') || path.starts_with("./") || path.starts_with("../");
  std::string name = has_start ? path : "./" + path;
  std::ranges::replace(name, '/', '\\');
  const std::string plain = without_dot(path);
  if (plain.empty() || path_of_windows(name) != plain) return std::nullopt;
  return name;
}

}  // namespace sluicebox::image

#include "image/formats/vhd/parent.h"

#include <vector>

#include "image/utf16.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::uint32_t kMaxNameBytes = 4096;

bool is_hex(char character) { return std::string_view("0123456789abcdefABCDEF").find(character) != std::string::npos; }

// file:///a%20b is /a b, and file://host/a means nothing here.
std::optional<std::string> path_of_url(std::string_view url) {
  constexpr std::string_view kScheme = "file://";
  if (!url.starts_with(kScheme)) return std::nullopt;
  url.remove_prefix(kScheme.size());
  if (url.starts_with("localhost/")) url.remove_prefix(std::string_view("localhost").size());
  std::string path;
  for (std::size_t i = 0; i < url.size(); ++i) {
    if (url[i] != '%' || i + 2 >= url.size() || !is_hex(url[i + 1]) || !is_hex(url[i + 2])) {
      path += url[i];
      continue;
    }
    path += static_cast<char>(std::stoi(std::string(url.substr(i + 1, 2)), nullptr, 16));
    i += 2;
  }
  if (!path.starts_with('/') && !path.starts_with("./")) return std::nullopt;
  return path;
}

std::optional<std::string> name_of(const ParentLocator& locator, const std::vector<std::byte>& bytes) {
  std::optional<std::string> name;
  if (locator.code == kMacUrl) {
    std::string url(bytes.size(), '\0');
    if (!bytes.empty()) std::memcpy(url.data(), bytes.data(), bytes.size());
    name = path_of_url(url.substr(0, url.find('\0')));
  } else {
    name = utf8_of_utf16(bytes, /*big_endian=*/false);
    if (name) name = path_of_windows(*name);
  }
  if (name && (name->empty() || name->find('\0') != std::string::npos)) return std::nullopt;
  return name;
}

}  // namespace

Result<std::optional<std::string>> parent_path(const File& file, const DynamicHeader& header) {
  for (const std::uint32_t code : {kRelativeWindows, kMacUrl, kAbsoluteWindows}) {
    for (const ParentLocator& locator : header.locators) {
      if (locator.code != code || locator.length == 0 || locator.length > kMaxNameBytes) continue;
      std::vector<std::byte> bytes(locator.length);
      if (TRY(file.read_at(locator.offset, bytes)) != bytes.size()) continue;
      if (auto name = name_of(locator, bytes)) return name;
    }
  }
  std::string name = path_of_windows(header.parent_name);
  return name.empty() ? std::optional<std::string>() : std::optional(std::move(name));
}

}  // namespace sluicebox::image::vhd

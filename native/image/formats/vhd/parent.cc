#include "image/formats/vhd/parent.h"

#include <array>

#include "image/printable.h"
#include "image/utf16.h"

namespace sluicebox::image::vhd {

namespace {

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

std::string url_of_path(const std::string& path) {
  constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string url = "file://";
  for (const char character : path) {
    if (kPlain.find(character) != std::string_view::npos) {
      url += character;
      continue;
    }
    const auto byte = static_cast<unsigned char>(character);
    url += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return url;
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

Result<WrittenName> write_parent_path(const std::string& path) {
  const auto refuse = [](std::string text) {
    return Error(ErrorCode::kInvalidArgument, "backing: " + std::move(text));
  };
  if (path.empty()) return refuse("the path is empty");
  if (path.size() > kMaxParentPath) {
    return refuse("the path has " + std::to_string(path.size()) + " bytes, at most " + std::to_string(kMaxParentPath) +
                  " are stored");
  }
  WrittenName written;
  if (path.starts_with('/') && path.find('\0') == std::string::npos) {
    const std::string url = url_of_path(path);
    written.code = kMacUrl;
    written.bytes.assign(as_bytes(url).begin(), as_bytes(url).end());
    return written;
  }
  const auto name = windows_of_path(path);
  auto text = name ? utf16_of_utf8(*name, /*big_endian=*/false) : std::nullopt;
  if (!text) return refuse("a vhd cannot record the name " + printable(path));
  written.code = kRelativeWindows;
  written.bytes = std::move(*text);
  return written;
}

void set_parent_name(DynamicHeader& header, const std::string& path, const WrittenName& name, std::uint64_t offset) {
  header.parent_name = path.substr(path.rfind('/') + 1);
  header.locators = {};
  header.locators[0] = {.code = name.code,
                        .space = kMaxNameBytes,
                        .length = static_cast<std::uint32_t>(name.bytes.size()),
                        .offset = offset};
}

}  // namespace sluicebox::image::vhd

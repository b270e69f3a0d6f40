#include "image/formats/vmdk/descriptor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

Error bad_descriptor(std::string text) {
  return Error(ErrorCode::kImageCorrupt, "vmdk descriptor: " + std::move(text));
}

Error unread_descriptor(std::string text) {
  return Error(ErrorCode::kUnsupported, "vmdk descriptor: " + std::move(text));
}

bool is_blank(char character) { return character == ' ' || character == '\t' || character == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Takes the first line off `rest`.
std::string_view take_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return line;
}

// Takes the first word off `rest`, and the blanks before it.
std::string_view take_word(std::string_view& rest) {
  rest = trimmed(rest);
  const std::size_t length = static_cast<std::size_t>(std::ranges::find_if(rest, is_blank) - rest.begin());
  const std::string_view word = rest.substr(0, length);
  rest.remove_prefix(length);
  return word;
}

std::optional<std::string_view> unquoted(std::string_view value) {
  if (value.size() < 2 || value.front() != '"' || value.back() != '"') return std::nullopt;
  value = value.substr(1, value.size() - 2);
  if (value.find('"') != std::string_view::npos) return std::nullopt;
  return value;
}

template <typename T>
std::optional<T> number_of(std::string_view text, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// `key = value` of a line; no key where the line is something else.
struct Assignment {
  std::string_view key, value;
};
Assignment assignment_of(std::string_view line) {
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return {};
  return {trimmed(line.substr(0, equals)), trimmed(line.substr(equals + 1))};
}

// The keys that count, as they come.
struct Keys {
  std::optional<std::string_view> version, cid, parent_cid, create_type, parent_hint;

  std::optional<std::string_view>* find(std::string_view key) {
    if (key == "version") return &version;
    if (key == "CID") return &cid;
    if (key == "parentCID") return &parent_cid;
    if (key == "createType") return &create_type;
    if (key == "parentFileNameHint") return &parent_hint;
    return nullptr;
  }
};

bool is_access(std::string_view word) { return word == "RW" || word == "RDONLY" || word == "NOACCESS"; }

Result<ExtentLine> parse_extent(std::string_view line) {
  const std::string shown = printable(line);
  const std::string_view access = take_word(line);
  if (access != "RW") return unread_descriptor("an extent that is not read and written: " + shown);
  ExtentLine extent;
  const auto sectors = number_of<std::uint64_t>(take_word(line), 10);
  if (!sectors || *sectors == 0 || *sectors > kMaxSectors) return bad_descriptor("an extent of no size: " + shown);
  extent.sectors = *sectors;
  const std::string_view kind = take_word(line);
  line = trimmed(line);
  if (kind == "ZERO") {
    if (!line.empty()) return bad_descriptor("something follows ZERO: " + shown);
    extent.kind = ExtentKind::kZero;
    return extent;
  }
  if (kind != "SPARSE" && kind != "FLAT" && kind != "VMFS") {
    return unread_descriptor("an extent of another kind than SPARSE, FLAT, VMFS and ZERO: " + shown);
  }
  extent.kind = kind == "SPARSE" ? ExtentKind::kSparse : ExtentKind::kFlat;
  const std::size_t end = line.starts_with('"') ? line.find('"', 1) : std::string_view::npos;
  if (end == std::string_view::npos || end == 1) return bad_descriptor("an extent without a name: " + shown);
  extent.name = line.substr(1, end - 1);
  const std::string_view rest = trimmed(line.substr(end + 1));
  if (extent.kind == ExtentKind::kSparse || (kind == "VMFS" && rest.empty())) {
    return rest.empty() ? Result<ExtentLine>(extent) : bad_descriptor("something follows the name: " + shown);
  }
  const auto offset = number_of<std::uint64_t>(rest, 10);
  if (!offset || *offset > kMaxSectors - extent.sectors) return bad_descriptor("an extent without an offset: " + shown);
  extent.offset = *offset;
  return extent;
}

Result<std::uint32_t> parse_cid(const std::optional<std::string_view>& value, const char* key) {
  if (!value) return bad_descriptor(std::string("there is no ") + key);
  const auto cid = value->size() > 8 ? std::nullopt : number_of<std::uint32_t>(*value, 16);
  if (!cid) return bad_descriptor(std::string(key) + " is no hexadecimal number of 32 bits: " + printable(*value));
  return *cid;
}

bool is_known_type(std::string_view type) {
  constexpr std::array<std::string_view, 6> kTypes = {"monolithicSparse",   "monolithicFlat",  "twoGbMaxExtentSparse",
                                                      "twoGbMaxExtentFlat", "streamOptimized", "vmfs"};
  return std::ranges::find(kTypes, type) != kTypes.end();
}

Status read_keys(const Keys& keys, Descriptor& descriptor) {
  if (!keys.version) return bad_descriptor("there is no version");
  const auto version = number_of<std::uint32_t>(*keys.version, 10);
  if (!version) return bad_descriptor("the version is no number: " + printable(*keys.version));
  if (*version < 1 || *version > 3) return unread_descriptor("version " + std::to_string(*version));
  descriptor.cid = TRY(parse_cid(keys.cid, "CID"));
  descriptor.parent_cid = TRY(parse_cid(keys.parent_cid, "parentCID"));
  if (!keys.create_type) return bad_descriptor("there is no createType");
  const auto type = unquoted(*keys.create_type);
  if (!type) return bad_descriptor("createType is not quoted: " + printable(*keys.create_type));
  if (!is_known_type(*type)) return unread_descriptor("the type " + printable(*type) + " is not built");
  descriptor.create_type = *type;
  if (!keys.parent_hint) {
    if (descriptor.parent_cid == kNoParent) return {};
    return bad_descriptor("a parentCID without a parentFileNameHint");
  }
  const auto hint = unquoted(*keys.parent_hint);
  if (!hint || hint->empty()) return bad_descriptor("parentFileNameHint is not quoted, or empty");
  if (hint->size() > kMaxParentHint) return bad_descriptor("parentFileNameHint is longer than 1023 bytes");
  if (descriptor.parent_cid == kNoParent) return bad_descriptor("a parentFileNameHint, and a parentCID that says none");
  descriptor.parent_hint = *hint;
  return {};
}

std::string hex_digits(std::uint32_t value, std::size_t digits) {
  std::array<char, 9> text = {};
  (void)std::snprintf(text.data(), text.size(), "%0*x", static_cast<int>(digits), value);
  return text.data();
}

// `text` with each line that sets `key` replaced by `line` (with its end), or left out where that is empty.
std::string replace_line(std::string_view text, std::string_view key, const std::string& line) {
  std::string replaced;
  while (!text.empty()) {
    const std::string_view before = text;
    const std::string_view old = take_line(text);
    if (assignment_of(old).key == key && !trimmed(old).starts_with('#')) {
      replaced += line;
    } else {
      replaced += before.substr(0, before.size() - text.size());
    }
  }
  return replaced;
}

// The geometry is what BIOSes of old would be told; nothing here reads it ("ddb.geometry").
std::string data_base_of(const DescriptorParts& parts) {
  std::uint64_t sectors = 0;
  for (const ExtentLine& extent : parts.extents) sectors += extent.sectors;
  const bool ide = parts.adapter == "ide";
  const std::uint64_t heads = ide ? 16 : 255;
  const std::uint64_t cylinders = sectors / (heads * 63);
  return "# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"" +
         std::to_string(cylinders) + "\"\nddb.geometry.heads = \"" + std::to_string(heads) +
         "\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"" + parts.adapter +
         "\"\nddb.toolsVersion = \"2147483647\"\n";
}

std::string line_of(const ExtentLine& extent) {
  const std::string start = "RW " + std::to_string(extent.sectors) + " ";
  switch (extent.kind) {
    case ExtentKind::kZero:
      return start + "ZERO\n";
    case ExtentKind::kFlat:
      return start + "FLAT \"" + extent.name + "\" " + std::to_string(extent.offset) + "\n";
    case ExtentKind::kSparse:
      break;
  }
  return start + "SPARSE \"" + extent.name + "\"\n";
}

}  // namespace

Result<Descriptor> parse_descriptor(std::string_view text) {
  text = text.substr(0, text.find('\0'));
  if (text.size() > kMaxDescriptorBytes) return bad_descriptor("it is above 1 MiB");
  if (!text.starts_with(kDescriptorMagic)) {
    return Error(ErrorCode::kImageFormat,
                 "this is not a vmdk descriptor: it does not begin with '# Disk DescriptorFile'")
        .at(0);
  }
  Descriptor descriptor;
  descriptor.text = text;
  Keys keys;
  while (!text.empty()) {
    const std::string_view line = trimmed(take_line(text));
    if (line.empty() || line.starts_with('#')) continue;
    std::string_view rest = line;
    if (is_access(take_word(rest))) {
      if (descriptor.extents.size() == kMaxExtents) return unread_descriptor("more than 1024 extents");
      descriptor.extents.push_back(TRY(parse_extent(line)));
      descriptor.sectors += descriptor.extents.back().sectors;
      if (descriptor.sectors > kMaxSectors) return bad_descriptor("the extents are larger than a file can be");
      continue;
    }
    const Assignment assignment = assignment_of(line);
    if (assignment.key == "changeTrackPath") descriptor.tracks_changes = true;
    std::optional<std::string_view>* const known = keys.find(assignment.key);
    if (known == nullptr) continue;
    if (known->has_value()) return bad_descriptor(std::string(assignment.key) + " comes twice");
    *known = assignment.value;
  }
  TRY(read_keys(keys, descriptor));
  if (descriptor.extents.empty()) return bad_descriptor("there are no extents");
  return descriptor;
}

std::string build_descriptor(const DescriptorParts& parts) {
  std::string text = std::string(kDescriptorMagic) + "\nversion=1\nCID=" + hex_digits(parts.cid, 8) +
                     "\nparentCID=" + hex_digits(parts.parent_cid, 8) + "\ncreateType=\"" + parts.create_type + "\"\n";
  if (!parts.parent_hint.empty()) text += "parentFileNameHint=\"" + parts.parent_hint + "\"\n";
  text += "\n# Extent description\n";
  for (const ExtentLine& extent : parts.extents) text += line_of(extent);
  return text + "\n" + data_base_of(parts);
}

bool quotable(std::string_view name) {
  return std::ranges::none_of(name, [](char each) {
    const auto byte = static_cast<unsigned char>(each);
    return byte < 0x20 || byte == 0x7f || byte == '"';
  });
}

NewCid with_cid(const Descriptor& descriptor, std::uint32_t cid) {
  std::string_view rest = descriptor.text;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest);
    const Assignment assignment = assignment_of(line);
    if (assignment.key != "CID") continue;
    const std::size_t digits = assignment.value.size();
    const std::uint32_t kept = digits >= 8 ? cid : cid & ((std::uint32_t{1} << (4 * digits)) - 1);
    NewCid made{.text = descriptor.text, .cid = kept};
    made.text.replace(static_cast<std::size_t>(assignment.value.data() - descriptor.text.data()), digits,
                      hex_digits(kept, digits));
    return made;
  }
  return {.text = descriptor.text, .cid = descriptor.cid};  // a descriptor that was parsed has one
}

std::string with_parent(const Descriptor& descriptor, const std::optional<std::string>& hint,
                        std::uint32_t parent_cid) {
  const std::string line_end = descriptor.text.find("\r\n") != std::string::npos ? "\r\n" : "\n";
  std::string text = replace_line(descriptor.text, "parentFileNameHint", "");
  std::string lines = "parentCID=" + hex_digits(parent_cid, 8) + line_end;
  if (hint) lines += "parentFileNameHint=\"" + *hint + "\"" + line_end;
  return replace_line(text, "parentCID", lines);
}

}  // namespace sluicebox::image::vmdk

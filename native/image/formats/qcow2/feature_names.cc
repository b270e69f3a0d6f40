#include "image/formats/qcow2/feature_names.h"

#include <array>
#include <bit>
#include <string_view>

namespace sluicebox::image::qcow2 {

namespace {

enum Kind : std::uint8_t { kIncompatibleKind = 0, kCompatibleKind = 1, kAutoclearKind = 2 };

struct FeatureName {
  Kind kind;
  std::uint8_t bit;
  std::string_view name;
};

constexpr std::array<FeatureName, 8> kNames = {{{kIncompatibleKind, 0, "dirty bit"},
                                                {kIncompatibleKind, 1, "corrupt bit"},
                                                {kIncompatibleKind, 2, "external data file"},
                                                {kIncompatibleKind, 3, "compression type"},
                                                {kIncompatibleKind, 4, "extended L2 entries"},
                                                {kCompatibleKind, 0, "lazy refcounts"},
                                                {kAutoclearKind, 0, "bitmaps"},
                                                {kAutoclearKind, 1, "raw external data"}}};

std::string printable(Bytes bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    const auto c = std::to_integer<unsigned char>(byte);
    if (c == 0) break;
    text.push_back(c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?');
  }
  return text;
}

}  // namespace

HeaderExtension feature_name_table() {
  HeaderExtension table{extension::kFeatureNames, std::vector<std::byte>(kNames.size() * kFeatureNameBytes)};
  std::byte* at = table.data.data();
  for (const FeatureName& each : kNames) {
    at[0] = std::byte{each.kind};
    at[1] = std::byte{each.bit};
    std::memcpy(at + 2, each.name.data(), each.name.size());
    at += kFeatureNameBytes;
  }
  return table;
}

std::string incompatible_feature_name(const Header& header, unsigned bit) {
  if (const HeaderExtension* table = header.find(extension::kFeatureNames)) {
    const Bytes all = table->data;
    for (std::size_t at = 0; at + kFeatureNameBytes <= all.size(); at += kFeatureNameBytes) {
      if (std::to_integer<unsigned>(all[at]) != kIncompatibleKind || std::to_integer<unsigned>(all[at + 1]) != bit) {
        continue;
      }
      std::string name = printable(all.subspan(at + 2, kFeatureNameBytes - 2));
      if (!name.empty()) return name;
    }
  }
  return "feature bit " + std::to_string(bit);
}

std::string unreadable_feature(const Header& header) {
  if (header.crypt_method == 1) return "AES encryption";
  if (header.crypt_method == 2) return "LUKS encryption";
  if (header.has(Incompatible::kDataFile)) return "external data file";
  if (header.compression_type > 1) return "compression type " + std::to_string(header.compression_type);
  const std::uint64_t unknown = header.incompatible & ~kKnownIncompatible;
  if (unknown != 0) return incompatible_feature_name(header, static_cast<unsigned>(std::countr_zero(unknown)));
  return {};
}

}  // namespace sluicebox::image::qcow2

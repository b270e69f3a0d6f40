// disk_format.h: the formats this engine builds, and their names.
// Knows: nothing. Threads: constants only.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluicebox::image {

enum class DiskFormat : std::uint8_t { kRaw, kQcow2 };

constexpr const char* format_name(DiskFormat format) {
  switch (format) {
    case DiskFormat::kRaw:
      return "raw";
    case DiskFormat::kQcow2:
      return "qcow2";
  }
  return "unknown";
}

constexpr std::optional<DiskFormat> format_from_name(std::string_view name) {
  if (name == "raw") return DiskFormat::kRaw;
  if (name == "qcow2") return DiskFormat::kQcow2;
  return std::nullopt;
}

}  // namespace sluicebox::image

// disk_format.h: the formats this engine builds, and their names.
// Knows: nothing. Threads: constants only.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluicebox::image {

enum class DiskFormat : std::uint8_t { kRaw, kQcow2, kVmdk, kVhd, kVhdx };

constexpr const char* format_name(DiskFormat format) {
  switch (format) {
    case DiskFormat::kRaw:
      return "raw";
    case DiskFormat::kQcow2:
      return "qcow2";
    case DiskFormat::kVmdk:
      return "vmdk";
    case DiskFormat::kVhd:
      return "vhd";
    case DiskFormat::kVhdx:
      return "vhdx";
  }
  return "unknown";
}

// The name that images record of their backing, and that QEMU's drivers have: qemu-img calls a VHD "vpc".
constexpr const char* recorded_name(DiskFormat format) {
  return format == DiskFormat::kVhd ? "vpc" : format_name(format);
}

constexpr std::optional<DiskFormat> format_from_name(std::string_view name) {
  if (name == "raw") return DiskFormat::kRaw;
  if (name == "qcow2") return DiskFormat::kQcow2;
  if (name == "vmdk") return DiskFormat::kVmdk;
  if (name == "vhd" || name == "vpc") return DiskFormat::kVhd;
  if (name == "vhdx") return DiskFormat::kVhdx;
  return std::nullopt;
}

}  // namespace sluicebox::image

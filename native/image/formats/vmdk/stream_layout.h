// stream_layout.h: what a streamOptimized file is made of beside its grains: the header in front, and markers.
// Knows: "Stream-Optimized Compressed Sparse Extents" of VMware's specification. Does not know: files.
// Threads: pure functions.
//
// The form is the one that every reader takes: the header leaves the directory to the footer. QEMU writes the directory
// in front, where some readers do not look for it.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/layout.h"

namespace sluicebox::image::vmdk {

inline SparseHeader stream_header(const Geometry& geometry) {
  SparseHeader header;
  header.version = 3;
  header.flags = kFlagLineEnds | kFlagCompressed | kFlagMarkers;
  header.geometry = geometry;
  header.descriptor_offset = kDescriptorSector;
  header.descriptor_sectors = kDescriptorSectors;
  header.directory = kDirectoryAtEnd;
  header.overhead = 128;
  header.compression = kDeflate;
  return header;
}

inline std::array<std::byte, kSectorBytes> marker_sector(std::uint64_t sectors, MarkerType type) {
  std::array<std::byte, kSectorBytes> marker = {};
  store_le64(marker.data(), sectors);
  store_le32(marker.data() + 12, static_cast<std::uint32_t>(type));
  return marker;
}

}  // namespace sluicebox::image::vmdk

// layout.h: the VHDX format's numbers, as MS-VHDX ("Virtual Hard Disk v2 File Format") has them.
// Knows: nothing else. All integers of the format are little-endian; so are the first three groups of its ids.
// Threads: constants only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "image/guid.h"

namespace sluicebox::image::vhdx {

inline constexpr std::uint64_t kMiB = 1u << 20;
inline constexpr char kFileSignature[] = "vhdxfile";
inline constexpr std::size_t kFileSignatureBytes = 8;

// 2.2: the header section. Everything else lies at multiples of 1 MiB behind it.
inline constexpr std::uint64_t kHeaderOffsets[2] = {64u << 10, 128u << 10};
inline constexpr std::uint64_t kRegionTableOffsets[2] = {192u << 10, 256u << 10};
inline constexpr std::uint64_t kHeaderSectionBytes = kMiB;
inline constexpr std::size_t kHeaderBytes = 4096;
inline constexpr std::size_t kRegionTableBytes = 64u << 10;
inline constexpr std::uint32_t kMaxRegions = 2047;

// 2.6.1: the metadata region begins with its table; items follow.
inline constexpr std::size_t kMetadataTableBytes = 64u << 10;
inline constexpr std::uint32_t kMaxMetadataEntries = 2047;
inline constexpr std::uint64_t kMaxMetadataItemBytes = kMiB;
inline constexpr std::size_t kMaxParentPath = 1023;  // of a new parent, as its overlay names it

inline constexpr std::uint64_t kMaxDiskBytes = std::uint64_t{64} << 40;
inline constexpr std::uint64_t kMinBlockBytes = kMiB;
inline constexpr std::uint64_t kMaxBlockBytes = 256u << 20;
// 2^23 sectors are what the sector bitmap of one chunk tells of.
inline constexpr std::uint64_t kChunkSectors = 1u << 23;
inline constexpr std::uint64_t kBitmapBlockBytes = kMiB;

// This engine's own limits: of a new image's table of blocks, of one that is read, and of a log.
inline constexpr std::uint64_t kMaxNewTableBytes = 24u << 20;
inline constexpr std::uint64_t kMaxTableBytes = 128u << 20;
inline constexpr std::uint64_t kMaxLogBytes = 64u << 20;
// The longest file that a log may ask for: the largest disk, and as much again.
inline constexpr std::uint64_t kMaxFileBytes = 2 * kMaxDiskBytes;

inline constexpr std::size_t kLogSectorBytes = 4096;

constexpr Guid guid_of(const unsigned char (&bytes)[16]) {
  Guid guid{};
  for (std::size_t i = 0; i < 16; ++i) guid[i] = std::byte{bytes[i]};
  return guid;
}

// In the order of the file.
inline constexpr Guid kTableRegion =
    guid_of({0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08});
inline constexpr Guid kMetadataRegion =
    guid_of({0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e});
inline constexpr Guid kFileParameters =
    guid_of({0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b});
inline constexpr Guid kDiskSize =
    guid_of({0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8});
inline constexpr Guid kPage83 =
    guid_of({0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46});
inline constexpr Guid kLogicalSector =
    guid_of({0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f});
inline constexpr Guid kPhysicalSector =
    guid_of({0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56});
inline constexpr Guid kParentLocator =
    guid_of({0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c});
inline constexpr Guid kVhdxLocatorType =
    guid_of({0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13});

}  // namespace sluicebox::image::vhdx

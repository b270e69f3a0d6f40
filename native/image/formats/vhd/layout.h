// layout.h: the VHD format's numbers, as "Virtual Hard Disk Image Format Specification" (Microsoft, 2006) has them.
// Knows: nothing else. All integers of the format are big-endian.
// Threads: constants only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluicebox::image::vhd {

inline constexpr std::uint64_t kSectorBytes = 512;
inline constexpr std::size_t kFooterBytes = 512;
inline constexpr std::size_t kOldFooterBytes = 511;  // of Virtual PC before 2004
inline constexpr std::size_t kHeaderBytes = 1024;    // of the dynamic header
inline constexpr std::uint32_t kVersion = 0x00010000;
inline constexpr std::uint32_t kFeatures = 2;  // "reserved", always set
inline constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};
inline constexpr std::uint32_t kAbsentBlock = ~std::uint32_t{0};
inline constexpr std::uint64_t kMaxDiskBytes = std::uint64_t{2040} << 30;

// What a new image may have; others are read from kMinReadBlock on.
inline constexpr std::uint32_t kDefaultBlockBytes = 2u << 20;
inline constexpr std::uint64_t kMinBlockBytes = 512u << 10;
inline constexpr std::uint64_t kMaxBlockBytes = 256u << 20;
inline constexpr std::uint64_t kMinReadBlockBytes = 4096;
// Of one image's table of blocks, in memory.
inline constexpr std::uint64_t kMaxTableBytes = 64u << 20;

inline constexpr char kFooterCookie[] = "conectix";
inline constexpr char kHeaderCookie[] = "cxsparse";
inline constexpr std::size_t kCookieBytes = 8;

// Footer, by byte.
namespace footer_at {
inline constexpr std::size_t kFeatures = 8, kVersion = 12, kDataOffset = 16, kTimestamp = 24, kCreator = 28;
inline constexpr std::size_t kCreatorVersion = 32, kCreatorHost = 36, kOriginalSize = 40, kCurrentSize = 48;
inline constexpr std::size_t kGeometry = 56, kType = 60, kChecksum = 64, kId = 68, kReserved = 85, kStandsAt = 96;
}  // namespace footer_at

// Dynamic header, by byte.
namespace header_at {
inline constexpr std::size_t kDataOffset = 8, kTableOffset = 16, kVersion = 24, kMaxEntries = 28, kBlockSize = 32;
inline constexpr std::size_t kChecksum = 36, kParentId = 40, kParentTime = 56, kParentName = 64, kLocators = 576;
}  // namespace header_at
inline constexpr std::size_t kParentNameBytes = 512;
inline constexpr std::size_t kLocatorCount = 8;
inline constexpr std::size_t kLocatorBytes = 24;
inline constexpr std::size_t kMaxParentPath = 1023;   // of a new image, as its overlay names it
inline constexpr std::uint32_t kMaxNameBytes = 4096;  // of a name in a locator; what a new one has room for

// Platform codes of parent locators.
inline constexpr std::uint32_t kRelativeWindows = 0x57327275;  // "W2ru": UTF-16LE, relative to the image
inline constexpr std::uint32_t kAbsoluteWindows = 0x57326b75;  // "W2ku": UTF-16LE
inline constexpr std::uint32_t kMacUrl = 0x4d616358;           // "MacX": a file URL in UTF-8

}  // namespace sluicebox::image::vhd

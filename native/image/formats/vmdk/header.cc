#include "image/formats/vmdk/header.h"

namespace sluicebox::image::vmdk {

namespace {

Error bad_header(std::string text, std::uint64_t at) {
  return Error(ErrorCode::kImageCorrupt, "vmdk header: " + std::move(text)).at(at);
}

Error unread_header(std::string text, std::uint64_t at) {
  return Error(ErrorCode::kUnsupported, "vmdk header: " + std::move(text)).at(at);
}

Status check_geometry(const Geometry& geometry) {
  if (geometry.capacity == 0) return bad_header("the disk has no sectors", at::kCapacity);
  if (geometry.capacity > kMaxSectors) return bad_header("the disk is larger than a file can be", at::kCapacity);
  if (!is_power_of_two(geometry.grain) || geometry.grain < kMinGrainSectors) {
    return bad_header("a grain of " + std::to_string(geometry.grain) + " sectors is no power of two from 8 up",
                      at::kGrain);
  }
  if (geometry.grain > kMaxGrainSectors) return unread_header("grains above 16 MiB", at::kGrain);
  return {};
}

// Sparse files write in place; streams are written once, with a marker before each part.
Status check_kind(const SparseHeader& header) {
  if (header.compression > kDeflate) return unread_header("a compression other than deflate", at::kCompression);
  if (header.has(kFlagCompressed) != header.compressed()) {
    return bad_header("the compression and its flag disagree", at::kCompression);
  }
  if (header.compressed() != header.has(kFlagMarkers)) {
    return unread_header("compressed grains without markers, or markers without compression", at::kFlags);
  }
  if (header.directory == kDirectoryAtEnd && !header.has(kFlagMarkers)) {
    return bad_header("the grain directory is at the end, but no marker leads there", at::kDirectory);
  }
  return {};
}

// A change of the descriptor must not be one of a directory.
Status check_apart(const SparseHeader& header) {
  const std::uint64_t begin = header.descriptor_offset;
  const std::uint64_t end = begin + header.descriptor_sectors;
  const auto overlaps = [&](std::uint64_t directory) {
    return directory < end && begin < directory + header.geometry.directory_sectors();
  };
  if (header.directory != kDirectoryAtEnd && end != 0 && overlaps(header.directory)) {
    return bad_header("the descriptor lies over the grain directory", at::kDescriptorOffset);
  }
  if (header.has(kFlagRedundantDirectory) && !header.compressed() && end != 0 && overlaps(header.redundant_directory)) {
    return bad_header("the descriptor lies over the redundant grain directory", at::kDescriptorOffset);
  }
  return {};
}

Status check_places(const SparseHeader& header) {
  if (header.directory == 0) return bad_header("there is no grain directory", at::kDirectory);
  if (header.directory != kDirectoryAtEnd && header.directory >= kMaxFileSectors) {
    return bad_header("the grain directory lies past the largest offset", at::kDirectory);
  }
  if (header.has(kFlagRedundantDirectory) && !header.compressed() &&
      (header.redundant_directory == 0 || header.redundant_directory >= kMaxFileSectors)) {
    return bad_header("the redundant grain directory lies nowhere", at::kRedundantDirectory);
  }
  if ((header.descriptor_offset == 0) != (header.descriptor_sectors == 0)) {
    return bad_header("the descriptor has a place and no size, or a size and no place", at::kDescriptorOffset);
  }
  if (header.descriptor_sectors > kMaxDescriptorBytes / kSectorBytes) {
    return bad_header("the descriptor is above 1 MiB", at::kDescriptorSize);
  }
  if (header.descriptor_offset >= kMaxFileSectors) {
    return bad_header("the descriptor lies past the largest offset", at::kDescriptorOffset);
  }
  return check_apart(header);
}

}  // namespace

Result<SparseHeader> parse_header(Bytes sector) {
  if (sector.size() < 4 || load_le32(sector.data()) != kMagic) {
    return Error(ErrorCode::kImageFormat, "this is not a sparse vmdk file: its first bytes are not 'KDMV'").at(0);
  }
  if (sector.size() < kSectorBytes) return bad_header("the file ends inside the header", sector.size());
  const std::byte* raw = sector.data();
  SparseHeader header;
  header.version = load_le32(raw + at::kVersion);
  if (header.version < 1 || header.version > 3) {
    return unread_header("version " + std::to_string(header.version) + " is not 1, 2 or 3", at::kVersion);
  }
  header.flags = load_le32(raw + at::kFlags);
  if ((header.flags & ~kKnownFlags) != 0) {
    return unread_header("unknown flags " + std::to_string(header.flags & ~kKnownFlags), at::kFlags);
  }
  header.geometry.capacity = load_le64(raw + at::kCapacity);
  header.geometry.grain = load_le64(raw + at::kGrain);
  header.descriptor_offset = load_le64(raw + at::kDescriptorOffset);
  header.descriptor_sectors = load_le64(raw + at::kDescriptorSize);
  header.redundant_directory = load_le64(raw + at::kRedundantDirectory);
  header.directory = load_le64(raw + at::kDirectory);
  header.overhead = load_le64(raw + at::kOverhead);
  header.unclean = raw[at::kUnclean] != std::byte{0};
  header.compression = load_le16(raw + at::kCompression);
  if (header.has(kFlagLineEnds) && std::memcmp(raw + at::kLineEnds, kLineEnds.data(), kLineEnds.size()) != 0) {
    return bad_header("its line ends were changed: the file was transferred as text", at::kLineEnds);
  }
  TRY(check_geometry(header.geometry));
  if (load_le32(raw + at::kTableEntries) != kTableEntries) {
    return unread_header("grain tables of another length than 512", at::kTableEntries);
  }
  TRY(check_kind(header));
  TRY(check_places(header));
  return header;
}

std::array<std::byte, kSectorBytes> serialize_header(const SparseHeader& header) {
  std::array<std::byte, kSectorBytes> sector = {};
  std::byte* raw = sector.data();
  store_le32(raw, kMagic);
  store_le32(raw + at::kVersion, header.version);
  store_le32(raw + at::kFlags, header.flags);
  store_le64(raw + at::kCapacity, header.geometry.capacity);
  store_le64(raw + at::kGrain, header.geometry.grain);
  store_le64(raw + at::kDescriptorOffset, header.descriptor_offset);
  store_le64(raw + at::kDescriptorSize, header.descriptor_sectors);
  store_le32(raw + at::kTableEntries, kTableEntries);
  store_le64(raw + at::kRedundantDirectory, header.redundant_directory);
  store_le64(raw + at::kDirectory, header.directory);
  store_le64(raw + at::kOverhead, header.overhead);
  raw[at::kUnclean] = std::byte{header.unclean ? std::uint8_t{1} : std::uint8_t{0}};
  std::memcpy(raw + at::kLineEnds, kLineEnds.data(), kLineEnds.size());
  store_le16(raw + at::kCompression, header.compression);
  return sector;
}

}  // namespace sluicebox::image::vmdk

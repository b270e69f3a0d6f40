#include "image/formats/vhd/footer.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "base/checked.h"

namespace sluicebox::image::vhd {

namespace {

Error bad_footer(std::string text, std::size_t at) {
  return Error(ErrorCode::kImageCorrupt, "vhd footer: " + std::move(text)).at(at);
}

using std::string_view_literals::operator""sv;

// Virtual PC and its imitators go by the geometry; these write the size that they mean.
constexpr std::string_view kXen = "tap\0"sv;
constexpr std::string_view kGoBySize[] = {"win "sv, "qem2"sv, "d2v "sv, "CTXS"sv, kXen};

}  // namespace

std::uint32_t checksum(Bytes bytes, std::size_t skip) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i < skip || i >= skip + 4) sum += std::to_integer<std::uint32_t>(bytes[i]);
  }
  return ~sum;
}

std::uint32_t timestamp_of(std::int64_t seconds_since_1970) {
  constexpr std::int64_t kEpoch = 946684800;
  constexpr std::int64_t kLast = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::clamp(seconds_since_1970, kEpoch, kEpoch + kLast) - kEpoch);
}

Geometry geometry_of(std::uint64_t disk_bytes) {
  const std::uint64_t total = std::min(disk_bytes, kLargestGeometry.bytes()) / kSectorBytes;
  std::uint64_t sectors = 17;
  std::uint64_t heads = 0;
  std::uint64_t tracks = 0;
  if (total >= std::uint64_t{65535} * 16 * 63) {
    sectors = 255;
    heads = 16;
    tracks = total / sectors;
  } else {
    tracks = total / sectors;
    heads = std::max<std::uint64_t>(4, div_round_up(tracks, 1024));
    if (tracks >= heads * 1024 || heads > 16) {
      sectors = 31;
      heads = 16;
      tracks = total / sectors;
    }
    if (tracks >= heads * 1024) {
      sectors = 63;
      heads = 16;
      tracks = total / sectors;
    }
  }
  return {.cylinders = static_cast<std::uint16_t>(tracks / heads),
          .heads = static_cast<std::uint8_t>(heads),
          .sectors = static_cast<std::uint8_t>(sectors)};
}

bool Footer::is_of_xen() const { return creator == kXen; }

bool Footer::creator_tells_size() const {
  return std::ranges::find(kGoBySize, std::string_view(creator)) != std::end(kGoBySize);
}

std::uint64_t Footer::disk_bytes() const {
  const bool by_size = creator_tells_size() || geometry.bytes() == kLargestGeometry.bytes();
  return by_size ? align_down(current_size, kSectorBytes) : geometry.bytes();
}

// The largest geometry says that the size counts, to those too who would go by a geometry.
void Footer::set_disk_bytes(std::uint64_t bytes) {
  // Some readers take the original size for the disk's.
  original_size = current_size = bytes;
  const bool keeps_geometry = creator_tells_size() && geometry.bytes() != kLargestGeometry.bytes();
  geometry = keeps_geometry ? geometry_of(bytes) : kLargestGeometry;
}

Result<Footer> parse_footer(Bytes bytes) {
  Footer footer;
  if (bytes.size() < kOldFooterBytes || std::memcmp(bytes.data(), kFooterCookie, kCookieBytes) != 0) {
    return Error(ErrorCode::kImageFormat, "there is no vhd footer");
  }
  std::memcpy(footer.raw.data(), bytes.data(), std::min(bytes.size(), footer.raw.size()));
  const std::byte* raw = footer.raw.data();
  if (load_be32(raw + footer_at::kChecksum) != checksum(footer.raw, footer_at::kChecksum)) {
    return bad_footer("its checksum is wrong", footer_at::kChecksum);
  }
  const std::uint32_t version = load_be32(raw + footer_at::kVersion);
  if (version >> 16 != kVersion >> 16) {
    return Error(ErrorCode::kUnsupported, "the vhd has version " + std::to_string(version >> 16) + ", not 1");
  }
  const std::uint32_t type = load_be32(raw + footer_at::kType);
  if (type < 2 || type > 4) {
    return Error(ErrorCode::kUnsupported,
                 "the vhd is of type " + std::to_string(type) + ", which is none of fixed, dynamic and differencing");
  }
  footer.type = static_cast<DiskType>(type);
  footer.data_offset = load_be64(raw + footer_at::kDataOffset);
  footer.timestamp = load_be32(raw + footer_at::kTimestamp);
  footer.creator.resize(4);
  std::memcpy(footer.creator.data(), raw + footer_at::kCreator, 4);
  footer.original_size = load_be64(raw + footer_at::kOriginalSize);
  footer.current_size = load_be64(raw + footer_at::kCurrentSize);
  footer.geometry = {.cylinders = load_be16(raw + footer_at::kGeometry),
                     .heads = std::to_integer<std::uint8_t>(raw[footer_at::kGeometry + 2]),
                     .sectors = std::to_integer<std::uint8_t>(raw[footer_at::kGeometry + 3])};
  footer.id = load_guid(raw + footer_at::kId);
  footer.stands_at = load_be64(raw + footer_at::kStandsAt);
  if (footer.disk_bytes() > kMaxDiskBytes) {
    return bad_footer("the disk is said to be larger than the format's 2040 GiB", footer_at::kCurrentSize);
  }
  return footer;
}

void serialize_footer(Footer& footer) {
  std::byte* raw = footer.raw.data();
  std::memcpy(raw, kFooterCookie, kCookieBytes);
  store_be32(raw + footer_at::kFeatures, load_be32(raw + footer_at::kFeatures) | kFeatures);
  store_be32(raw + footer_at::kVersion, kVersion);
  store_be64(raw + footer_at::kDataOffset, footer.data_offset);
  store_be32(raw + footer_at::kTimestamp, footer.timestamp);
  std::memcpy(raw + footer_at::kCreator, footer.creator.data(), std::min<std::size_t>(4, footer.creator.size()));
  store_be64(raw + footer_at::kOriginalSize, footer.original_size);
  store_be64(raw + footer_at::kCurrentSize, footer.current_size);
  store_be16(raw + footer_at::kGeometry, footer.geometry.cylinders);
  raw[footer_at::kGeometry + 2] = std::byte{footer.geometry.heads};
  raw[footer_at::kGeometry + 3] = std::byte{footer.geometry.sectors};
  store_be32(raw + footer_at::kType, static_cast<std::uint32_t>(footer.type));
  store_guid(raw + footer_at::kId, footer.id);
  store_be64(raw + footer_at::kStandsAt, footer.stands_at);
  store_be32(raw + footer_at::kChecksum, checksum(footer.raw, footer_at::kChecksum));
}

}  // namespace sluicebox::image::vhd

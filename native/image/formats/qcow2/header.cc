#include "image/formats/qcow2/header.h"

#include <algorithm>
#include <string_view>

#include "base/checked.h"

namespace sluicebox::image::qcow2 {

namespace {

Error corrupt(std::string text, std::uint64_t at) {
  return Error(ErrorCode::kImageCorrupt, "qcow2 header: " + std::move(text)).at(at);
}

std::string text_of(Bytes bytes) {
  std::string text(bytes.size(), '\0');
  if (!bytes.empty()) std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

Status parse_v3_fields(Bytes cluster0, Header& header) {
  if (cluster0.size() < kHeaderBytesV3Min) return corrupt("the file ends inside the header", cluster0.size());
  const std::byte* raw = cluster0.data();
  header.incompatible = load_be64(raw + at::kIncompatible);
  header.compatible = load_be64(raw + at::kCompatible);
  header.autoclear = load_be64(raw + at::kAutoclear);
  const std::uint32_t order = load_be32(raw + at::kRefcountOrder);
  if (order > 6) return corrupt("refcount order " + std::to_string(order) + " is above 6", at::kRefcountOrder);
  header.geometry.refcount_order = order;
  header.header_length = load_be32(raw + at::kHeaderLength);
  if (header.header_length < kHeaderBytesV3Min) return corrupt("header length is below 104", at::kHeaderLength);
  if (header.header_length > header.geometry.cluster()) {
    return corrupt("header length is above the cluster size", at::kHeaderLength);
  }
  if (header.header_length > cluster0.size()) return corrupt("the file ends inside the header", cluster0.size());
  if (header.header_length > at::kCompressionType) {
    header.compression_type = std::to_integer<std::uint8_t>(raw[at::kCompressionType]);
  }
  if (header.header_length > at::kCompressionType + 1) {
    header.unknown_fields.assign(raw + at::kCompressionType + 1, raw + header.header_length);
  }
  header.geometry.extended_l2 = header.has(Incompatible::kExtendedL2);
  if (header.geometry.extended_l2 && header.geometry.cluster_bits < kMinExtendedClusterBits) {
    return corrupt("extended L2 entries in clusters below 16 KiB", at::kClusterBits);
  }
  const bool typed = header.has(Incompatible::kCompression);
  if (typed != (header.compression_type != 0)) {
    return corrupt("the compression type and its feature bit disagree", at::kCompressionType);
  }
  return {};
}

// A table of `bytes` bytes at `offset`: aligned, not over the header, and not past what a file can hold.
Status check_table(const Header& header, std::uint64_t offset, std::uint64_t bytes, const char* what, std::size_t at) {
  if (header.geometry.in_cluster(offset) != 0) return corrupt(std::string(what) + " is not cluster-aligned", at);
  if (offset == 0) return corrupt(std::string(what) + " lies over the header", at);
  const auto end = checked_add(offset, bytes);
  if (!end || *end > kMaxHostOffset) return corrupt(std::string(what) + " lies past the largest offset", at);
  return {};
}

Status check_tables(const Header& header) {
  const Geometry& geometry = header.geometry;
  if (header.l1_size > kMaxL1Entries) return corrupt("the L1 table is above 32 MiB", at::kL1Size);
  if (header.l1_size < geometry.l1_entries_for(header.size)) {
    return corrupt("the L1 table is too small for the disk", at::kL1Size);
  }
  if (header.l1_size > 0) {
    TRY(check_table(header, header.l1_offset, std::uint64_t{header.l1_size} * 8, "the L1 table", at::kL1Offset));
  }
  const std::uint64_t refcount_bytes = std::uint64_t{header.refcount_table_clusters} << geometry.cluster_bits;
  if (refcount_bytes == 0) return corrupt("there is no refcount table", at::kRefcountTableClusters);
  if (refcount_bytes > kMaxRefcountTableBytes) {
    return corrupt("the refcount table is above 8 MiB", at::kRefcountTableClusters);
  }
  TRY(check_table(header, header.refcount_table_offset, refcount_bytes, "the refcount table",
                  at::kRefcountTableOffset));
  if (header.snapshot_count > kMaxSnapshots) return corrupt("more than 65536 snapshots", at::kSnapshotCount);
  if (header.snapshot_count > 0) {
    TRY(check_table(header, header.snapshots_offset, std::uint64_t{header.snapshot_count} * 40, "the snapshot table",
                    at::kSnapshotsOffset));
  }
  return {};
}

Status parse_extensions(Bytes cluster0, Header& header, std::optional<std::string>& backing_format) {
  const std::uint64_t limit = header.backing_offset != 0 ? header.backing_offset : header.geometry.cluster();
  const std::uint64_t end = std::min<std::uint64_t>(limit, cluster0.size());
  std::uint64_t at = header.header_length;
  header.extensions_end = at;
  while (end >= 8 && at <= end - 8) {
    const std::uint32_t type = load_be32(cluster0.data() + at);
    const std::uint64_t length = load_be32(cluster0.data() + at + 4);
    if (type == extension::kEnd) {
      header.extensions_end = at + 8;
      return {};
    }
    at += 8;
    if (length > end - at) return corrupt("an extension is longer than its place", at - 4);
    const Bytes data = cluster0.subspan(at, length);
    if (type == extension::kBackingFormat) {
      backing_format = text_of(data);
    } else {
      header.extensions.push_back({type, {data.begin(), data.end()}});
    }
    at = std::min(end, at + (length + 7) / 8 * 8);  // padded by its own length, wherever it begins
    header.extensions_end = at;
  }
  return {};
}

Status parse_backing(Bytes cluster0, Header& header, std::optional<std::string> format) {
  if (header.backing_offset == 0) return {};
  const std::uint64_t length = load_be32(cluster0.data() + at::kBackingLength);
  if (length > kMaxBackingPath) return corrupt("the backing path is longer than 1023 bytes", at::kBackingLength);
  if (header.backing_offset > header.geometry.cluster() || length > header.geometry.cluster() - header.backing_offset) {
    return corrupt("the backing path lies outside the first cluster", at::kBackingOffset);
  }
  if (header.backing_offset < header.header_length) {
    return corrupt("the backing path lies over the header", at::kBackingOffset);
  }
  if (header.backing_offset + length > cluster0.size()) {
    return corrupt("the file ends inside the backing path", at::kBackingOffset);
  }
  if (length == 0) return {};
  header.backing = BackingReference{text_of(cluster0.subspan(header.backing_offset, length)), std::move(format)};
  return {};
}

void append(std::vector<std::byte>& out, std::uint32_t type, Bytes data) {
  const std::size_t start = out.size();
  out.resize(start + 8 + (data.size() + 7) / 8 * 8);
  store_be32(out.data() + start, type);
  store_be32(out.data() + start + 4, static_cast<std::uint32_t>(data.size()));
  if (!data.empty()) std::memcpy(out.data() + start + 8, data.data(), data.size());
}

}  // namespace

const HeaderExtension* Header::find(std::uint32_t type) const {
  const auto found = std::find_if(extensions.begin(), extensions.end(), [&](const auto& e) { return e.type == type; });
  return found == extensions.end() ? nullptr : &*found;
}

Result<std::optional<BitmapDirectory>> Header::bitmaps() const {
  const HeaderExtension* found = find(extension::kBitmaps);
  if (found == nullptr) return std::optional<BitmapDirectory>();
  if (found->data.size() != 24) return corrupt("the bitmaps extension is not 24 bytes", header_length);
  const std::byte* raw = found->data.data();
  const BitmapDirectory directory{load_be32(raw), load_be64(raw + 8), load_be64(raw + 16)};
  if (directory.count == 0 || directory.count > kMaxBitmaps || directory.bytes > kMaxBitmapDirectoryBytes ||
      directory.bytes < std::uint64_t{directory.count} * 24) {
    return corrupt("the bitmaps extension has an impossible size", header_length);
  }
  TRY(check_table(*this, directory.offset, directory.bytes, "the bitmap directory", header_length));
  return std::optional(directory);
}

Result<std::uint64_t> cluster_size_of(Bytes head) {
  if (head.size() < 4 || load_be32(head.data()) != kMagic) {
    return Error(ErrorCode::kImageFormat, "this is not a qcow2 image: its first bytes are not the magic number").at(0);
  }
  if (head.size() < kHeaderBytesV2) return corrupt("the file ends inside the header", head.size());
  const std::uint32_t version = load_be32(head.data() + at::kVersion);
  if (version != 2 && version != 3) {
    return Error(ErrorCode::kUnsupported, "qcow2 version " + std::to_string(version) + " is neither 2 nor 3")
        .at(at::kVersion);
  }
  const std::uint32_t bits = load_be32(head.data() + at::kClusterBits);
  if (bits < kMinClusterBits || bits > kMaxClusterBits) {
    return corrupt("cluster bits " + std::to_string(bits) + " are not 9 to 21", at::kClusterBits);
  }
  return std::uint64_t{1} << bits;
}

Result<Header> parse_header(Bytes cluster0) {
  const std::uint64_t cluster_size = TRY(cluster_size_of(cluster0));
  if (cluster0.size() > cluster_size) cluster0 = cluster0.first(cluster_size);
  const std::byte* raw = cluster0.data();
  Header header;
  header.version = load_be32(raw + at::kVersion);
  header.geometry.cluster_bits = load_be32(raw + at::kClusterBits);
  header.backing_offset = load_be64(raw + at::kBackingOffset);
  header.size = load_be64(raw + at::kSize);
  header.crypt_method = load_be32(raw + at::kCryptMethod);
  header.l1_size = load_be32(raw + at::kL1Size);
  header.l1_offset = load_be64(raw + at::kL1Offset);
  header.refcount_table_offset = load_be64(raw + at::kRefcountTableOffset);
  header.refcount_table_clusters = load_be32(raw + at::kRefcountTableClusters);
  header.snapshot_count = load_be32(raw + at::kSnapshotCount);
  header.snapshots_offset = load_be64(raw + at::kSnapshotsOffset);
  header.header_length = kHeaderBytesV2;
  if (header.version == 3) TRY(parse_v3_fields(cluster0, header));
  if (header.crypt_method > 2) return corrupt("the encryption method is unknown", at::kCryptMethod);
  if (header.crypt_method == 2 && header.version == 2) return corrupt("LUKS in a version 2 image", at::kCryptMethod);
  TRY(check_tables(header));
  if (header.backing_offset > cluster_size) {
    return corrupt("the backing path lies outside the first cluster", at::kBackingOffset);
  }
  std::optional<std::string> backing_format;
  TRY(parse_extensions(cluster0, header, backing_format));
  TRY(parse_backing(cluster0, header, std::move(backing_format)));
  TRY(header.bitmaps());
  if (header.crypt_method == 2) {
    const HeaderExtension* luks = header.find(extension::kLuks);
    if (luks == nullptr || luks->data.size() != 16) return corrupt("LUKS without its header pointer", at::kCryptMethod);
  }
  return header;
}

std::vector<std::byte> serialize_header(const Header& header) {
  std::vector<std::byte> out(header.header_length);
  std::byte* raw = out.data();
  store_be32(raw + at::kMagic, kMagic);
  store_be32(raw + at::kVersion, header.version);
  store_be64(raw + at::kBackingOffset, header.backing ? header.backing_offset : 0);
  store_be32(raw + at::kBackingLength, header.backing ? static_cast<std::uint32_t>(header.backing->path.size()) : 0);
  store_be32(raw + at::kClusterBits, header.geometry.cluster_bits);
  store_be64(raw + at::kSize, header.size);
  store_be32(raw + at::kCryptMethod, header.crypt_method);
  store_be32(raw + at::kL1Size, header.l1_size);
  store_be64(raw + at::kL1Offset, header.l1_offset);
  store_be64(raw + at::kRefcountTableOffset, header.refcount_table_offset);
  store_be32(raw + at::kRefcountTableClusters, header.refcount_table_clusters);
  store_be32(raw + at::kSnapshotCount, header.snapshot_count);
  store_be64(raw + at::kSnapshotsOffset, header.snapshots_offset);
  if (header.version >= 3) {
    store_be64(raw + at::kIncompatible, header.incompatible);
    store_be64(raw + at::kCompatible, header.compatible);
    store_be64(raw + at::kAutoclear, header.autoclear);
    store_be32(raw + at::kRefcountOrder, header.geometry.refcount_order);
    store_be32(raw + at::kHeaderLength, header.header_length);
    if (out.size() > at::kCompressionType) raw[at::kCompressionType] = std::byte{header.compression_type};
    const std::size_t unknown_at = at::kCompressionType + 1;
    for (std::size_t i = 0; i < header.unknown_fields.size() && unknown_at + i < out.size(); ++i) {
      raw[unknown_at + i] = header.unknown_fields[i];
    }
  }
  if (header.backing && header.backing->format) {
    append(out, extension::kBackingFormat, as_bytes(*header.backing->format));
  }
  for (const HeaderExtension& each : header.extensions) append(out, each.type, each.data);
  append(out, extension::kEnd, {});
  return out;
}

}  // namespace sluicebox::image::qcow2

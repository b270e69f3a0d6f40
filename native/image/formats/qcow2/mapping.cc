#include "image/formats/qcow2/mapping.h"

#include <algorithm>
#include <string>

namespace sluicebox::image::qcow2 {

namespace {

class ExtentFinder {
 public:
  ExtentFinder(ImageState& image, std::uint64_t offset, std::uint64_t length)
      : image_(image), geometry_(image.geometry()), offset_(offset), end_(offset + length), at_(offset) {}

  Result<Extent> find() {
    while (at_ < end_) {
      const std::uint64_t l1_index = at_ / geometry_.l2_span();
      if (l1_index >= image_.l1.size()) return image_.corrupt("the L1 table is too small", image_.header.l1_offset);
      const std::uint64_t span_end = std::min(end_, (l1_index + 1) * geometry_.l2_span());
      if ((image_.l1[l1_index] & kOffsetMask) == 0) {
        if (!accept(L2Entry{}, 0)) break;
        at_ = span_end;
        continue;
      }
      auto table = load_l2(image_, l1_index);
      if (!table.ok()) {
        if (started_) break;
        return std::move(table).error();
      }
      if (!TRY(scan(**table, span_end))) break;
    }
    extent_.length = at_ - offset_;
    return extent_;
  }

 private:
  // Adds the clusters of one table up to `span_end`; false when the extent ended inside.
  Result<bool> scan(const CachedTable& table, std::uint64_t span_end) {
    std::uint64_t index = at_ % geometry_.l2_span() >> geometry_.cluster_bits;
    for (; at_ < span_end; ++index) {
      const RawL2Entry raw = load_l2_entry(table.bytes(), index, geometry_);
      const std::uint64_t cluster_end = std::min(span_end, at_ - geometry_.in_cluster(at_) + geometry_.cluster());
      // Most entries of a sparse disk are 0: inside an unallocated extent they say nothing new.
      if (raw.empty() && started_ && extent_.kind == EntryKind::kUnallocated && extent_.host == 0) {
        at_ = cluster_end;
        continue;
      }
      const L2Entry entry = decode_l2(raw, geometry_, image_.header.version);
      if (auto good = check_entry(image_, entry, table.offset() + index * geometry_.l2_entry_bytes()); !good.ok()) {
        if (started_) return false;
        return std::move(good).error();
      }
      while (at_ < cluster_end) {
        const auto unit = static_cast<unsigned>(geometry_.in_cluster(at_) / geometry_.unit());
        if (!accept(entry, unit)) return false;
        const std::uint64_t units = unit + entry.alike_from(unit, geometry_);
        at_ = std::min(cluster_end, at_ - geometry_.in_cluster(at_) + units * geometry_.unit());
      }
    }
    return true;
  }

  // Whether what `entry` says of the unit around `at_` begins the extent, or goes on where it stopped.
  bool accept(const L2Entry& entry, unsigned unit) {
    const EntryKind kind = entry.kind(unit);
    const std::uint64_t host = entry.host == 0 ? 0 : entry.host + geometry_.in_cluster(at_);
    if (started_) {
      return kind == extent_.kind && kind != EntryKind::kCompressed &&
             host == (extent_.host == 0 ? 0 : extent_.host + (at_ - offset_));
    }
    started_ = true;
    extent_.kind = kind;
    extent_.host = kind == EntryKind::kCompressed ? entry.host : host;
    extent_.compressed_bytes = entry.bytes;
    return true;
  }

  ImageState& image_;
  const Geometry geometry_;
  const std::uint64_t offset_, end_;
  std::uint64_t at_;
  bool started_ = false;
  Extent extent_;
};

}  // namespace

Result<std::shared_ptr<CachedTable>> load_l2(ImageState& image, std::uint64_t l1_index) {
  const std::uint64_t offset = image.l1[l1_index] & kOffsetMask;
  const std::uint64_t entry_at = image.header.l1_offset + l1_index * 8;
  if (!image.geometry().valid_cluster_offset(offset)) return image.corrupt("an L1 entry is unaligned", entry_at);
  if (!image.begins_in_file(offset)) return image.corrupt("an L1 entry points past the end of the file", entry_at);
  if (image.shared_tables.contains(offset)) {
    return image.corrupt("an L1 entry points at other metadata", entry_at);
  }
  return image.l2_tables.load(offset);
}

Status check_entry(const ImageState& image, const L2Entry& entry, std::uint64_t at) {
  if (entry.damage != nullptr) return image.corrupt(std::string("an L2 entry has ") + entry.damage, at);
  if (entry.host == 0) return {};
  if (!image.begins_in_file(entry.host)) return image.corrupt("an L2 entry points past the end of the file", at);
  const std::uint64_t bytes = entry.compressed ? std::min(entry.bytes, image.file_end - entry.host) : 1;
  if (image.metadata.first_in(entry.host, bytes)) return image.corrupt("an L2 entry points at metadata", at);
  return {};
}

Result<Extent> find_extent(ImageState& image, std::uint64_t offset, std::uint64_t length) {
  return ExtentFinder(image, offset, length).find();
}

}  // namespace sluicebox::image::qcow2

#include "image/formats/qcow2/mapping.h"

#include <algorithm>
#include <string>

namespace sluicebox::image::qcow2 {

namespace {

// Whether `next`, at `expected_host`, goes on where an extent of `kind` stopped.
bool continues(EntryKind kind, const L2Entry& next, std::uint64_t expected_host) {
  return next.kind == kind && kind != EntryKind::kCompressed && next.host == expected_host;
}

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
        if (!accept(L2Entry{})) break;
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
      const std::uint64_t raw = table.entry(index);
      // Most entries of a sparse disk are 0: inside an unallocated extent they say nothing new.
      if (raw != 0 || !started_ || extent_.kind != EntryKind::kUnallocated) {
        const L2Entry entry = decode_l2(raw, geometry_, image_.header.version);
        if (auto good = check_entry(image_, entry, table.offset() + index * 8); !good.ok()) {
          if (started_) return false;
          return std::move(good).error();
        }
        if (!accept(entry)) return false;
      }
      at_ = std::min(span_end, at_ - geometry_.in_cluster(at_) + geometry_.cluster());
    }
    return true;
  }

  bool accept(const L2Entry& entry) {
    if (started_) {
      return continues(extent_.kind, entry, extent_.host == 0 ? 0 : extent_.host + (at_ - offset_));
    }
    started_ = true;
    extent_.kind = entry.kind;
    const bool in_place = entry.kind == EntryKind::kData || (entry.kind == EntryKind::kZero && entry.host != 0);
    extent_.host = in_place ? entry.host + geometry_.in_cluster(offset_) : entry.host;
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
  const std::uint64_t bytes =
      entry.kind == EntryKind::kCompressed ? std::min(entry.bytes, image.file_end - entry.host) : 1;
  if (image.metadata.first_in(entry.host, bytes)) return image.corrupt("an L2 entry points at metadata", at);
  return {};
}

Result<Extent> find_extent(ImageState& image, std::uint64_t offset, std::uint64_t length) {
  return ExtentFinder(image, offset, length).find();
}

}  // namespace sluicebox::image::qcow2

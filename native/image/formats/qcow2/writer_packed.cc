#include <algorithm>

#include "base/checked.h"
#include "image/formats/qcow2/mapping.h"
#include "image/formats/qcow2/writer.h"

namespace sluicebox::image::qcow2 {

Status Writer::write_packed(std::uint64_t offset, Bytes stream) {
  TRY(prepare());
  TRY(guarded(write_stream(offset, stream)));
  return relieve();
}

Status Writer::write_stream(std::uint64_t offset, Bytes stream) {
  const Geometry& geometry = image_.geometry();
  const auto table = TRY(table_for(offset / geometry.l2_span()));
  const std::uint64_t index = offset % geometry.l2_span() >> geometry.cluster_bits;
  const L2Entry old = TRY(entry_at(*table, index));
  const std::uint64_t host = TRY(place_stream(stream.size()));
  const std::uint64_t last = host + stream.size() - 1;
  data_written_ = true;
  if (auto written = image_.write(host, stream); !written.ok()) {
    const std::uint64_t clusters = (last >> geometry.cluster_bits) - (host >> geometry.cluster_bits) + 1;
    TRY(give_back({.offset = host - geometry.in_cluster(host), .clusters = clusters}, 0));
    packed_end_ = 0;
    return std::move(written).error();
  }
  TRY(release(old));
  const std::uint64_t more_sectors = last / kSectorBytes - host / kSectorBytes;
  const std::uint64_t descriptor = kEntryCompressed | more_sectors << compressed_offset_bits(geometry) | host;
  set_raw_entry(*table, index, {.descriptor = descriptor});
  packed_end_ = geometry.in_cluster(last + 1) == 0 ? 0 : last + 1;
  return {};
}

// Right behind the stream before it, as far as that goes: the cluster that they share counts each. A stream reaches
// into the next cluster where that is free; otherwise it begins there wherever that is.
Result<std::uint64_t> Writer::place_stream(std::uint64_t bytes) {
  const Geometry& geometry = image_.geometry();
  const std::uint64_t shared = packed_end_ >> geometry.cluster_bits;
  const bool shares = packed_end_ != 0 && TRY(refcounts_.get(shared)) < geometry.max_refcount();
  if (shares && bytes <= geometry.cluster() - geometry.in_cluster(packed_end_)) {
    TRY(refcounts_.raise(shared));
    return packed_end_;
  }
  const ClusterRun run = TRY(allocator_.allocate(1));
  const bool reaches = shares && run.offset == (shared + 1) << geometry.cluster_bits;
  const std::uint64_t host = reaches ? packed_end_ : run.offset;
  if ((host + bytes) >> compressed_offset_bits(geometry) != 0) {
    TRY(give_back(run, 0));
    return Error(ErrorCode::kNoSpace, "the image is at its largest: compressed clusters cannot lie further back")
        .on(image_.file.path());
  }
  if (reaches) TRY(refcounts_.raise(shared));
  return host;
}

// A stream may end anywhere; other readers take whole sectors.
Status Writer::pad_file() {
  const auto whole = checked_align_up(image_.file_end, kSectorBytes);
  if (packed_end_ == 0 || !whole || *whole == image_.file_end) return {};
  TRY(image_.file.truncate(*whole));
  image_.file_end = *whole;
  return {};
}

}  // namespace sluicebox::image::qcow2

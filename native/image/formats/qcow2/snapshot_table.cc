#include "image/formats/qcow2/snapshot_table.h"

#include <algorithm>
#include <array>

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kFixedBytes = 40;
constexpr std::uint64_t kNoInstructionCount = ~std::uint64_t{0};

Error corrupt(const File& file, std::string what, std::uint64_t offset) {
  return Error(ErrorCode::kImageCorrupt, "snapshot table: " + std::move(what)).on(file.path()).at(offset);
}

Result<std::string> read_text(const File& file, std::uint64_t offset, std::uint64_t length) {
  std::string text(length, '\0');
  TRY(read_exact(file, offset, std::as_writable_bytes(std::span(text.data(), text.size())), "the snapshot table"));
  return text;
}

class Reader {
 public:
  Reader(const File& file, const Header& header, std::uint64_t end) : file_(file), header_(header), end_(end) {}

  Status read_entry(std::uint64_t at) {
    if (end_ - at < kFixedBytes) return corrupt(file_, "it ends past the file or above 64 MiB", at);
    std::array<std::byte, kFixedBytes> raw;
    TRY(read_exact(file_, at, raw, "the snapshot table"));
    const std::uint64_t id_bytes = load_be16(raw.data() + 12);
    const std::uint64_t name_bytes = load_be16(raw.data() + 14);
    const std::uint64_t extra_bytes = load_be32(raw.data() + 36);
    Snapshot snapshot{.l1_offset = load_be64(raw.data()), .l1_entries = load_be32(raw.data() + 8)};
    if (extra_bytes > kMaxSnapshotExtra) return corrupt(file_, "an entry has more than 1 KiB of extra data", at + 36);
    if (snapshot.l1_entries > kMaxL1Entries) return corrupt(file_, "an L1 table is above 32 MiB", at + 8);
    if (header_.version >= 3 && extra_bytes < 16) return corrupt(file_, "an entry lacks its disk size", at + 36);
    const std::uint64_t used = kFixedBytes + extra_bytes + id_bytes + name_bytes;
    if (end_ - at < used) return corrupt(file_, "it ends past the file or above 64 MiB", at);
    snapshot.entry_bytes = (used + 7) / 8 * 8;
    std::array<std::byte, 24> extra;
    const std::size_t known = std::min<std::size_t>(extra_bytes, extra.size()) / 8 * 8;
    TRY(read_exact(file_, at + kFixedBytes, MutableBytes(extra).first(known), "the snapshot table"));
    if (known >= 16) snapshot.disk_bytes = load_be64(extra.data() + 8);
    table_.entries.push_back(snapshot);

    text_bytes_ += id_bytes + name_bytes;
    if (text_bytes_ > kMaxSnapshotText) return {};  // and so for all that follow
    InternalSnapshot shown;
    shown.seconds = load_be32(raw.data() + 16);
    shown.nanoseconds = load_be32(raw.data() + 20);
    shown.vm_state_bytes = load_be32(raw.data() + 32);
    shown.vm_clock_ns = load_be64(raw.data() + 24);
    if (known >= 8) shown.vm_state_bytes = load_be64(extra.data());
    if (known >= 24 && load_be64(extra.data() + 16) != kNoInstructionCount) {
      shown.icount = load_be64(extra.data() + 16);
    }
    shown.id = TRY(read_text(file_, at + kFixedBytes + extra_bytes, id_bytes));
    shown.name = TRY(read_text(file_, at + kFixedBytes + extra_bytes + id_bytes, name_bytes));
    table_.shown.push_back(std::move(shown));
    return {};
  }

  std::uint64_t last_entry_bytes() const { return table_.entries.back().entry_bytes; }
  SnapshotTable take() { return std::move(table_); }

 private:
  const File& file_;
  const Header& header_;
  const std::uint64_t end_;
  SnapshotTable table_;
  std::uint64_t text_bytes_ = 0;
};

}  // namespace

std::size_t SnapshotTable::memory_bytes() const {
  std::size_t bytes = entries.capacity() * sizeof(Snapshot) + shown.capacity() * sizeof(InternalSnapshot);
  for (const InternalSnapshot& each : shown) bytes += each.id.size() + each.name.size();
  return bytes;
}

Result<SnapshotTable> read_snapshot_table(const File& file, const Header& header, std::uint64_t file_size,
                                          const CancelToken& cancel) {
  if (header.snapshot_count == 0) return SnapshotTable();
  std::uint64_t at = header.snapshots_offset;
  const std::uint64_t end = std::min(file_size, at + kMaxSnapshotTableBytes);
  if (at >= end || std::uint64_t{header.snapshot_count} * kFixedBytes > end - at) {
    return corrupt(file, "it is not inside the file", at);
  }
  Reader reader(file, header, end);
  for (std::uint32_t i = 0; i < header.snapshot_count; ++i) {
    TRY(cancel.check());
    if (at >= end) return corrupt(file, "it ends past the file or above 64 MiB", at);
    TRY(reader.read_entry(at));
    at += reader.last_entry_bytes();
  }
  return reader.take();
}

const Snapshot* find_snapshot(const std::vector<Snapshot>& entries, const std::vector<InternalSnapshot>& shown,
                              const std::string& id_or_name) {
  for (const auto key : {&InternalSnapshot::id, &InternalSnapshot::name}) {
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (shown[i].*key == id_or_name) return &entries[i];
    }
  }
  return nullptr;
}

std::uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots) {
  std::uint64_t bytes = 0;
  for (const Snapshot& each : snapshots) bytes += each.entry_bytes;
  return bytes;
}

}  // namespace sluicebox::image::qcow2

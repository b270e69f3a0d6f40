#include "image/formats/qcow2/snapshot_table.h"

#include <algorithm>
#include <array>

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kFixedBytes = 40;

Error corrupt(const File& file, std::string what, std::uint64_t offset) {
  return Error(ErrorCode::kImageCorrupt, "snapshot table: " + std::move(what)).on(file.path()).at(offset);
}

Result<std::string> read_text(const File& file, std::uint64_t offset, std::uint64_t length) {
  std::string text(length, '\0');
  TRY(read_exact(file, offset, std::as_writable_bytes(std::span(text.data(), text.size())), "the snapshot table"));
  return text;
}

Result<Snapshot> read_entry(const File& file, const Header& header, std::uint64_t at, std::uint64_t end) {
  if (end - at < kFixedBytes) return corrupt(file, "it ends past the file or above 64 MiB", at);
  std::array<std::byte, kFixedBytes> raw;
  TRY(read_exact(file, at, raw, "the snapshot table"));
  Snapshot snapshot;
  snapshot.l1_offset = load_be64(raw.data());
  snapshot.l1_entries = load_be32(raw.data() + 8);
  const std::uint64_t id_bytes = load_be16(raw.data() + 12);
  const std::uint64_t name_bytes = load_be16(raw.data() + 14);
  snapshot.shown.seconds = load_be32(raw.data() + 16);
  snapshot.shown.nanoseconds = load_be32(raw.data() + 20);
  snapshot.shown.vm_state_bytes = load_be32(raw.data() + 32);
  const std::uint64_t extra_bytes = load_be32(raw.data() + 36);
  if (extra_bytes > kMaxSnapshotExtra) return corrupt(file, "an entry has more than 1 KiB of extra data", at + 36);
  if (snapshot.l1_entries > kMaxL1Entries) return corrupt(file, "an L1 table is above 32 MiB", at + 8);
  if (header.version >= 3 && extra_bytes < 16) return corrupt(file, "an entry lacks its disk size", at + 36);
  const std::uint64_t used = kFixedBytes + extra_bytes + id_bytes + name_bytes;
  if (end - at < used) return corrupt(file, "it ends past the file or above 64 MiB", at);
  if (extra_bytes >= 8) {
    std::array<std::byte, 8> state;
    TRY(read_exact(file, at + kFixedBytes, state, "the snapshot table"));
    snapshot.shown.vm_state_bytes = load_be64(state.data());
  }
  snapshot.shown.id = TRY(read_text(file, at + kFixedBytes + extra_bytes, id_bytes));
  snapshot.shown.name = TRY(read_text(file, at + kFixedBytes + extra_bytes + id_bytes, name_bytes));
  snapshot.entry_bytes = (used + 7) / 8 * 8;
  return snapshot;
}

}  // namespace

Result<std::vector<Snapshot>> read_snapshot_table(const File& file, const Header& header, std::uint64_t file_size) {
  std::vector<Snapshot> snapshots;
  if (header.snapshot_count == 0) return snapshots;
  std::uint64_t at = header.snapshots_offset;
  const std::uint64_t end = std::min(file_size, at + kMaxSnapshotTableBytes);
  if (at >= end || std::uint64_t{header.snapshot_count} * kFixedBytes > end - at) {
    return corrupt(file, "it is not inside the file", at);
  }
  for (std::uint32_t i = 0; i < header.snapshot_count; ++i) {
    if (at >= end) return corrupt(file, "it ends past the file or above 64 MiB", at);
    snapshots.push_back(TRY(read_entry(file, header, at, end)));
    at += snapshots.back().entry_bytes;
  }
  return snapshots;
}

std::uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots) {
  std::uint64_t bytes = 0;
  for (const Snapshot& each : snapshots) bytes += each.entry_bytes;
  return bytes;
}

}  // namespace sluicebox::image::qcow2

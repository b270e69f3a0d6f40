#include "image/formats/qcow2/snapshot_entry.h"

#include <algorithm>
#include <charconv>

namespace sluicebox::image::qcow2 {

namespace {

// Byte offsets in an entry.
namespace entry_at {
constexpr std::size_t kL1Offset = 0, kL1Entries = 8, kIdLength = 12, kNameLength = 14, kSeconds = 16, kNanoseconds = 20;
constexpr std::size_t kExtraLength = 36, kDiskBytes = 48, kText = 64;  // the extra data are 24 bytes, from 40 on
}  // namespace entry_at
constexpr std::uint32_t kExtraBytes = entry_at::kText - 40;

void put_text(std::vector<std::byte>& bytes, std::size_t at, const std::string& text) {
  std::memcpy(bytes.data() + at, text.data(), text.size());
}

std::string text_at(Bytes table, std::uint64_t at, std::size_t length) {
  const Bytes bytes = table.subspan(at, length);
  std::string text(length, '\0');
  if (length != 0) std::memcpy(text.data(), bytes.data(), length);
  return text;
}

}  // namespace

// No machine's state, no clock and no count of instructions, which is what qemu-img writes too.
std::vector<std::byte> snapshot_entry(const NewSnapshot& snapshot) {
  const std::size_t used = entry_at::kText + snapshot.id.size() + snapshot.name.size();
  std::vector<std::byte> bytes((used + 7) / 8 * 8);
  store_be64(bytes.data() + entry_at::kL1Offset, snapshot.l1_offset);
  store_be32(bytes.data() + entry_at::kL1Entries, snapshot.l1_entries);
  store_be16(bytes.data() + entry_at::kIdLength, static_cast<std::uint16_t>(snapshot.id.size()));
  store_be16(bytes.data() + entry_at::kNameLength, static_cast<std::uint16_t>(snapshot.name.size()));
  store_be32(bytes.data() + entry_at::kSeconds, static_cast<std::uint32_t>(snapshot.seconds));
  store_be32(bytes.data() + entry_at::kNanoseconds, snapshot.nanoseconds);
  store_be32(bytes.data() + entry_at::kExtraLength, kExtraBytes);
  store_be64(bytes.data() + entry_at::kDiskBytes, snapshot.disk_bytes);
  put_text(bytes, entry_at::kText, snapshot.id);
  put_text(bytes, entry_at::kText + snapshot.id.size(), snapshot.name);
  return bytes;
}

std::vector<SnapshotText> snapshot_texts(Bytes table, const std::vector<Snapshot>& entries) {
  std::vector<SnapshotText> texts;
  texts.reserve(entries.size());
  for (std::uint64_t at = 0; const Snapshot& each : entries) {
    const std::size_t id_bytes = load_be16(table.data() + at + entry_at::kIdLength);
    const std::size_t name_bytes = load_be16(table.data() + at + entry_at::kNameLength);
    const std::uint64_t text = at + 40 + load_be32(table.data() + at + entry_at::kExtraLength);
    texts.push_back({.id = text_at(table, text, id_bytes), .name = text_at(table, text + id_bytes, name_bytes)});
    at += each.entry_bytes;
  }
  return texts;
}

std::string next_snapshot_id(const std::vector<SnapshotText>& texts) {
  std::uint64_t highest = 0;
  for (const SnapshotText& each : texts) {
    std::uint64_t number = 0;
    const char* end = each.id.data() + each.id.size();
    const auto read = std::from_chars(each.id.data(), end, number);
    if (read.ec == std::errc() && read.ptr == end && number < ~std::uint64_t{0}) highest = std::max(highest, number);
  }
  return std::to_string(highest + 1);
}

std::size_t index_of_snapshot(const std::vector<SnapshotText>& texts, const std::string& id_or_name) {
  for (const auto key : {&SnapshotText::id, &SnapshotText::name}) {
    const auto found = std::ranges::find(texts, id_or_name, key);
    if (found != texts.end()) return static_cast<std::size_t>(found - texts.begin());
  }
  return texts.size();
}

}  // namespace sluicebox::image::qcow2

#include "image/formats/vhdx/log.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/checked.h"
#include "image/formats/vhdx/crc32c.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr char kEntrySignature[] = "loge";
constexpr char kDataDescriptor[] = "desc";
constexpr char kZeroDescriptor[] = "zero";
constexpr char kDataSignature[] = "data";
constexpr std::size_t kEntryChecksumAt = 4, kEntryLengthAt = 8, kTailAt = 12, kEntrySequenceAt = 16, kCountAt = 24;
constexpr std::size_t kEntryLogAt = 32, kFlushedAt = 48, kLastAt = 56;
constexpr std::uint64_t kEntryHeaderBytes = 64, kDescriptorBytes = 32;
// A page's first 8 and last 4 bytes travel in its descriptor; the sector has marks there.
constexpr std::size_t kLeading = 8, kTrailing = 4;

bool has_signature(const std::byte* at, const char* signature) { return std::memcmp(at, signature, 4) == 0; }

std::uint64_t descriptor_sectors(std::uint64_t count) {
  return div_round_up(kEntryHeaderBytes + count * kDescriptorBytes, kLogSectorBytes);
}

class Ring {
 public:
  explicit Ring(Bytes bytes) : bytes_(bytes) {}

  std::uint64_t sectors() const { return bytes_.size() / kLogSectorBytes; }
  Bytes sector(std::uint64_t number) const {
    return bytes_.subspan(number % sectors() * kLogSectorBytes, kLogSectorBytes);
  }

 private:
  Bytes bytes_;
};

// Sector by sector, and it stops at the first one that does not fit. A sector that could begin an entry never fits
// inside of another, so all entries of a ring together cost one walk over it.
class EntryReader {
 public:
  EntryReader(const Ring& ring, std::uint64_t first, const Guid& log) : ring_(ring), first_(first), log_(log) {}

  std::optional<LogEntry> read() {
    const Bytes head = ring_.sector(first_);
    if (!parse_head(head)) return std::nullopt;
    std::uint32_t crc = crc32c_padded(head, kEntryChecksumAt, kLogSectorBytes);
    const std::uint64_t described = descriptor_sectors(entry_.changes);
    std::uint64_t pages = 0;
    std::uint64_t left = entry_.changes;
    for (std::uint64_t i = 0; i < described; ++i) {
      const Bytes sector = ring_.sector(first_ + i);
      const std::uint64_t begin = i == 0 ? kEntryHeaderBytes : 0;
      const std::uint64_t fit = std::min(left, (kLogSectorBytes - begin) / kDescriptorBytes);
      for (std::uint64_t k = 0; k < fit; ++k) {
        if (!fits(sector.data() + begin + k * kDescriptorBytes, pages)) return std::nullopt;
      }
      left -= fit;
      if (i > 0) crc = crc32c(sector, crc);
    }
    if ((described + pages) * kLogSectorBytes != entry_.length) return std::nullopt;
    for (std::uint64_t i = 0; i < pages; ++i) {
      const Bytes sector = ring_.sector(first_ + described + i);
      if (!is_page(sector)) return std::nullopt;
      crc = crc32c(sector, crc);
    }
    return crc == checksum_ ? std::optional(entry_) : std::nullopt;
  }

 private:
  bool parse_head(Bytes head) {
    const std::byte* raw = head.data();
    if (!has_signature(raw, kEntrySignature) || load_guid(raw + kEntryLogAt) != log_) return false;
    checksum_ = load_le32(raw + kEntryChecksumAt);
    entry_.position = first_ * kLogSectorBytes;
    entry_.length = load_le32(raw + kEntryLengthAt);
    entry_.tail = load_le32(raw + kTailAt);
    entry_.sequence = load_le64(raw + kEntrySequenceAt);
    entry_.changes = load_le32(raw + kCountAt);
    entry_.flushed_bytes = load_le64(raw + kFlushedAt);
    entry_.last_bytes = load_le64(raw + kLastAt);
    const std::uint64_t ring_bytes = ring_.sectors() * kLogSectorBytes;
    return entry_.sequence != 0 && entry_.length != 0 && entry_.length % kLogSectorBytes == 0 &&
           entry_.length <= ring_bytes && entry_.tail % kLogSectorBytes == 0 && entry_.tail < ring_bytes &&
           descriptor_sectors(entry_.changes) * kLogSectorBytes <= entry_.length;
  }

  bool fits(const std::byte* descriptor, std::uint64_t& pages) const {
    const bool page = has_signature(descriptor, kDataDescriptor);
    if (!page && !has_signature(descriptor, kZeroDescriptor)) return false;
    if (page) ++pages;
    const bool whole = page || load_le64(descriptor + 8) % kLogSectorBytes == 0;
    return whole && load_le64(descriptor + 16) % kLogSectorBytes == 0 && load_le64(descriptor + 24) == entry_.sequence;
  }

  bool is_page(Bytes sector) const {
    return has_signature(sector.data(), kDataSignature) &&
           load_le32(sector.data() + 4) == static_cast<std::uint32_t>(entry_.sequence >> 32) &&
           load_le32(sector.data() + kLogSectorBytes - kTrailing) == static_cast<std::uint32_t>(entry_.sequence);
  }

  const Ring& ring_;
  const std::uint64_t first_;
  const Guid& log_;
  LogEntry entry_;
  std::uint32_t checksum_ = 0;
};

// An entry, and the run of entries that it ends: each begins where the one before it ends, and is one higher.
struct Linked {
  LogEntry entry;
  std::size_t run = 0;
};

std::vector<Linked> sound_entries(const Ring& ring, const Guid& log) {
  std::vector<Linked> found;
  for (std::uint64_t sector = 0; sector < ring.sectors(); ++sector) {
    if (auto entry = EntryReader(ring, sector, log).read()) found.push_back({.entry = *entry});
  }
  std::ranges::sort(found, {}, [](const Linked& each) { return each.entry.sequence; });
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::size_t> ending;  // by end and sequence: which
  const std::uint64_t ring_bytes = ring.sectors() * kLogSectorBytes;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const LogEntry& entry = found[i].entry;
    const auto before = ending.find({entry.position, entry.sequence - 1});
    found[i].run = before == ending.end() ? i : found[before->second].run;
    ending[{(entry.position + entry.length) % ring_bytes, entry.sequence}] = i;
  }
  return found;
}

}  // namespace

std::vector<LogEntry> active_sequence(Bytes bytes, const Guid& log) {
  bytes = bytes.first(align_down(bytes.size(), kLogSectorBytes));
  const Ring ring(bytes);
  const std::vector<Linked> found = sound_entries(ring, log);
  std::map<std::uint64_t, std::size_t> by_position;
  for (std::size_t i = 0; i < found.size(); ++i) by_position[found[i].entry.position] = i;
  for (std::size_t i = found.size(); i-- > 0;) {
    const Linked& head = found[i];
    const auto tail = by_position.find(head.entry.tail);
    if (tail == by_position.end()) continue;
    const Linked& oldest = found[tail->second];
    if (oldest.run != head.run || oldest.entry.sequence > head.entry.sequence) continue;
    std::vector<LogEntry> entries;
    for (const Linked& each : found) {
      const bool within = each.entry.sequence >= oldest.entry.sequence && each.entry.sequence <= head.entry.sequence;
      if (each.run == head.run && within) entries.push_back(each.entry);
    }
    return entries;
  }
  return {};
}

Status each_change(Bytes bytes, const LogEntry& entry, const std::function<Status(LogChange)>& visit) {
  const Ring ring(bytes.first(align_down(bytes.size(), kLogSectorBytes)));
  const std::uint64_t first = entry.position / kLogSectorBytes;
  std::uint64_t page = first + descriptor_sectors(entry.changes);
  for (std::uint64_t i = 0; i < entry.changes; ++i) {
    const std::uint64_t at = kEntryHeaderBytes + i * kDescriptorBytes;
    const std::byte* descriptor = ring.sector(first + at / kLogSectorBytes).data() + at % kLogSectorBytes;
    LogChange change;
    change.offset = load_le64(descriptor + 16);
    change.zeros = has_signature(descriptor, kZeroDescriptor);
    if (change.zeros) {
      change.length = load_le64(descriptor + 8);
    } else {
      change.length = kLogSectorBytes;
      const Bytes sector = ring.sector(page++);
      change.bytes.assign(sector.begin(), sector.end());
      std::memcpy(change.bytes.data(), descriptor + 8, kLeading);
      std::memcpy(change.bytes.data() + kLogSectorBytes - kTrailing, descriptor + 4, kTrailing);
    }
    TRY(visit(std::move(change)));
  }
  return {};
}

std::vector<std::byte> serialize_entry(std::span<const LogPage> pages, const Guid& log, std::uint64_t file_bytes) {
  constexpr std::uint64_t kFirst = 1;  // the log's id is new, so its numbers begin anew
  const std::uint64_t described = descriptor_sectors(pages.size());
  std::vector<std::byte> bytes((described + pages.size()) * kLogSectorBytes);
  std::byte* raw = bytes.data();
  std::memcpy(raw, kEntrySignature, 4);
  store_le32(raw + kEntryLengthAt, static_cast<std::uint32_t>(bytes.size()));
  store_le64(raw + kEntrySequenceAt, kFirst);
  store_le32(raw + kCountAt, static_cast<std::uint32_t>(pages.size()));
  store_guid(raw + kEntryLogAt, log);
  store_le64(raw + kFlushedAt, file_bytes);
  store_le64(raw + kLastAt, file_bytes);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const std::byte* content = pages[i].bytes.data();
    std::byte* descriptor = raw + kEntryHeaderBytes + i * kDescriptorBytes;
    std::memcpy(descriptor, kDataDescriptor, 4);
    std::memcpy(descriptor + 4, content + kLogSectorBytes - kTrailing, kTrailing);
    std::memcpy(descriptor + 8, content, kLeading);
    store_le64(descriptor + 16, pages[i].offset);
    store_le64(descriptor + 24, kFirst);
    std::byte* sector = raw + (described + i) * kLogSectorBytes;
    std::memcpy(sector, content, kLogSectorBytes);
    std::memcpy(sector, kDataSignature, 4);
    store_le32(sector + 4, static_cast<std::uint32_t>(kFirst >> 32));
    store_le32(sector + kLogSectorBytes - kTrailing, static_cast<std::uint32_t>(kFirst));
  }
  store_le32(raw + kEntryChecksumAt, crc32c_padded(bytes, kEntryChecksumAt, bytes.size()));
  return bytes;
}

std::size_t most_pages(std::uint64_t ring_bytes) {
  std::uint64_t pages = ring_bytes / kLogSectorBytes;
  while (pages > 0 && (descriptor_sectors(pages) + pages) * kLogSectorBytes > ring_bytes) --pages;
  return pages;
}

}  // namespace sluicebox::image::vhdx

#include "image/formats/vhdx/writer.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhdx/block_map.h"
#include "image/formats/vhdx/changed_pages.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::uint64_t kZerosPerWrite = 1u << 20;
// From here on, more updates of the header than one would ever do are left before its number starts anew.
constexpr std::uint64_t kLastSequence = ~std::uint64_t{0} - (std::uint64_t{1} << 32);

}  // namespace

Status Writer::begin(Change change) {
  if (failed_) return *failed_;
  const bool disk = change == Change::kDisk;
  if (begun_ && (disk_begun_ || !disk)) return {};
  if (!begun_) TRY(prepare_file());
  Header header = image_.header;
  header.log = Guid{};
  header.file_write = TRY(random_guid());
  if (disk) header.data_write = TRY(random_guid());
  TRY(update_header(header));
  begun_ = true;
  disk_begun_ = disk;
  return {};
}

Status Writer::prepare_file() {
  if (!image_.damaged.empty()) {
    // A new block could come to lie where a wrong entry points.
    return image_.corrupt("the image cannot be written: its table of blocks is damaged", image_.regions.table.offset)
        .advise("check tells where; copy what can be read into a new image");
  }
  if (most_pages(image_.header.log_length) == 0) {
    return image_.corrupt("the image cannot be written: it has no room for a log", image_.header.log_offset);
  }
  if (image_.header.sequence > kLastSequence) {
    return image_.corrupt("the image cannot be written: its header cannot be numbered any higher",
                          kHeaderOffsets[image_.header_copy]);
  }
  TRY(image_.file.write_back());
  // A log, or a table, may be placed behind the end of the file: no block comes to lie there.
  std::uint64_t bytes = TRY(image_.file.size());
  for (const TakenRange& each : image_.taken) bytes = std::max(bytes, each.end);
  next_ = revealed_ = checked_align_up(bytes, kMiB).value_or(bytes);
  return {};
}

// Each copy in turn, so that a crash leaves one of them whole at any moment, and both say the same in the end.
Status Writer::update_header(const Header& header) {
  TRY(write_header_copy(header));
  return write_header_copy(header);
}

Status Writer::write_header_copy(Header header) {
  header.sequence = image_.header.sequence + 1;
  const unsigned copy = 1 - image_.header_copy;
  std::vector<std::byte> bytes(kHeaderBytes);
  std::ranges::copy(serialize_header(header), bytes.begin());
  TRY(image_.file.write_at(kHeaderOffsets[copy], bytes));
  TRY(image_.file.sync());
  image_.header = header;
  image_.header_copy = copy;
  return {};
}

Status Writer::write(std::uint64_t offset, Bytes data) {
  TRY(begin(Change::kDisk));
  const std::uint64_t block_size = image_.metadata.block_size;
  while (!data.empty()) {
    const std::uint64_t in_block = offset % block_size;
    const Bytes part = data.first(std::min<std::uint64_t>(data.size(), block_size - in_block));
    TRY(write_part(offset / block_size, in_block, part));
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

// A block that hides its parent by zeros is placed whole, for its other sectors are zeros still.
Status Writer::write_part(std::uint64_t block, std::uint64_t in_block, Bytes data) {
  const std::uint64_t& entry = image_.table[image_.shape.entry_of_block(block)];
  const BlockState before = state_of(entry);
  if (before != BlockState::kPresent && before != BlockState::kPartlyPresent) {
    const bool shows_parent = image_.shape.has_parent && before == BlockState::kNotPresent;
    TRY(shows_parent && !covers(block, in_block, data.size()) ? place_partly(block) : place(block));
  }
  written_ = true;
  TRY(image_.file.write_at(offset_of(entry) + in_block, data));
  if (state_of(entry) == BlockState::kPresent) return {};
  return show(block, in_block, in_block + data.size());
}

bool Writer::covers(std::uint64_t block, std::uint64_t in_block, std::uint64_t length) const {
  const std::uint64_t block_size = image_.metadata.block_size;
  return in_block == 0 && length == std::min(block_size, reach() - block * block_size);
}

// Without a parent, what is not there reads as zeros already.
Status Writer::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(begin(Change::kDisk));
  const std::uint64_t block_size = image_.metadata.block_size;
  const std::vector<std::byte> zeros(std::min(length, kZerosPerWrite));
  while (length > 0) {
    const Run run = TRY(find_run(image_, offset, length));
    const std::uint64_t block = offset / block_size;
    std::uint64_t part = run.length;
    if (run.holds == Holds::kNothing && image_.shape.has_parent) {
      part = std::min(part, block_size - offset % block_size);
      const std::uint64_t entry = image_.shape.entry_of_block(block);
      if (state_of(image_.table[entry]) == BlockState::kNotPresent && covers(block, offset % block_size, part)) {
        written_ = true;
        set_entry(entry, BlockState::kZero, 0);
      } else {
        part = std::min<std::uint64_t>(part, zeros.size());
        TRY(write(offset, Bytes(zeros).first(part)));
      }
    } else if (run.holds == Holds::kData) {
      part = std::min<std::uint64_t>(part, zeros.size());
      TRY(write(offset, Bytes(zeros).first(part)));
    }
    offset += part;
    length -= part;
  }
  return {};
}

void Writer::set_entry(std::uint64_t entry, BlockState state, std::uint64_t offset) {
  image_.table[entry] = entry_of(state, offset);
  changed_entries_.insert(entry);
}

// Past the end of the file, where everything reads as zeros.
Result<std::uint64_t> Writer::grow(std::uint64_t bytes) {
  if (next_ + bytes > kMaxFileBytes) {
    return Error(ErrorCode::kNoSpace, "the file is as long as this engine reads it").on(image_.file.path());
  }
  written_ = true;
  TRY(image_.file.truncate(next_ + bytes));
  const std::uint64_t at = next_;
  next_ += bytes;
  return at;
}

Status Writer::place(std::uint64_t block) {
  const std::uint64_t at = TRY(grow(image_.metadata.block_size));
  set_entry(image_.shape.entry_of_block(block), BlockState::kPresent, at);
  return {};
}

// With none of its sectors there yet, whatever an older bitmap says of them.
Status Writer::place_partly(std::uint64_t block) {
  const std::uint64_t bitmap = image_.shape.entry_of_bitmap(block);
  if (state_of(image_.table[bitmap]) != BlockState::kPresent) {
    const std::uint64_t at = TRY(grow(kBitmapBlockBytes));
    set_entry(bitmap, BlockState::kPresent, at);
  }
  const std::uint64_t first = image_.first_bit(block);
  TRY(change_bits(block, first, first + image_.metadata.block_size / image_.metadata.logical_sector, false));
  const std::uint64_t at = TRY(grow(image_.metadata.block_size));
  set_entry(image_.shape.entry_of_block(block), BlockState::kPartlyPresent, at);
  return {};
}

// A block of which every sector is there needs no bitmap.
Status Writer::show(std::uint64_t block, std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t sector = image_.metadata.logical_sector;
  const std::uint64_t base = image_.first_bit(block);
  TRY(change_bits(block, base + begin / sector, base + end / sector, true));
  const std::uint64_t block_size = image_.metadata.block_size;
  const std::uint64_t last = base + std::min(block_size, reach() - block * block_size) / sector;
  const std::uint64_t bitmap = offset_of(image_.table[image_.shape.entry_of_bitmap(block)]);
  for (std::uint64_t at = base; at < last;) {
    const auto same = TRY(image_.bitmaps.look(bitmap, at, last));
    if (!same.set) return {};
    at += same.sectors;
  }
  const std::uint64_t entry = image_.shape.entry_of_block(block);
  set_entry(entry, BlockState::kPresent, offset_of(image_.table[entry]));
  return {};
}

Status Writer::change_bits(std::uint64_t block, std::uint64_t first, std::uint64_t last, bool set) {
  const std::uint64_t bitmap = offset_of(image_.table[image_.shape.entry_of_bitmap(block)]);
  while (first < last) {
    const auto same = TRY(image_.bitmaps.look(bitmap, first, last));
    if (same.set != set) TRY(image_.bitmaps.change(bitmap, first, first + same.sectors, set));
    first += same.sectors;
  }
  return {};
}

Status Writer::flush() {
  if (!written_) return {};
  if (failed_) return *failed_;
  TRY(image_.file.sync());
  revealed_ = next_;  // from here on, what fails may have revealed a block all the same
  TRY(reveal());
  written_ = false;
  return {};
}

// In one step if the log has room for it; else what is pointed at comes before what points there: a bitmap's bits, its
// entry, and then the blocks that need it.
Status Writer::reveal() {
  SectorBitmaps::Pages& bits = image_.bitmaps.changed();
  std::vector<LogPage> pages;
  for (const auto& [offset, bytes] : bits) {
    if (pages.size() == most()) {
      TRY(change_pages(pages));
      pages.clear();
    }
    pages.push_back({.offset = offset, .bytes = bytes});
  }
  std::vector<std::uint64_t> bitmaps;
  std::vector<std::uint64_t> blocks;
  std::set<std::uint64_t> table_pages;
  for (const std::uint64_t entry : changed_entries_) {
    (image_.shape.is_bitmap(entry) ? bitmaps : blocks).push_back(entry);
    table_pages.insert(page_of(entry));
  }
  if (pages.size() + table_pages.size() <= most()) {
    const std::vector<std::uint64_t> all(changed_entries_.begin(), changed_entries_.end());
    TRY(change_entries(all, std::move(pages)));
  } else {
    if (!pages.empty()) TRY(change_pages(pages));
    TRY(change_entries(bitmaps, {}));
    TRY(change_entries(blocks, {}));
  }
  bits.clear();
  changed_entries_.clear();
  return {};
}

std::uint64_t Writer::page_of(std::uint64_t entry) const {
  return align_down(image_.regions.table.offset + entry * 8, kLogSectorBytes);
}

// Ascending entries, as they are in memory, and with the first of them `pages`, which are not of the table. The other
// entries of a page stay as they are in the file.
Status Writer::change_entries(std::span<const std::uint64_t> entries, std::vector<LogPage> pages) {
  for (const std::uint64_t entry : entries) {
    const std::uint64_t offset = page_of(entry);
    if (pages.empty() || pages.back().offset != offset) {
      if (pages.size() == most()) {
        TRY(change_pages(pages));
        pages.clear();
      }
      pages.push_back({.offset = offset, .bytes = std::vector<std::byte>(kLogSectorBytes)});
      TRY(read_exact(image_.file, offset, pages.back().bytes, "the vhdx table of blocks"));
    }
    const std::uint64_t at = image_.regions.table.offset + entry * 8;
    store_le64(pages.back().bytes.data() + (at - offset), image_.table[entry]);
  }
  return pages.empty() ? ok_status() : change_pages(pages);
}

// A header that names a log finds a whole entry there: it was durable before. Of an id that no entry had before, so
// that none of an earlier change is ever taken for this one's.
Status Writer::change_pages(std::span<const LogPage> pages) {
  Header header = image_.header;
  header.log = TRY(random_guid());
  const std::uint64_t bytes = TRY(image_.file.size());
  TRY(image_.file.write_at(header.log_offset, serialize_entry(pages, header.log, bytes)));
  TRY(image_.file.sync());
  Status applied = apply_pages(header, pages);
  // The next log would take the place of this one, which may be all that makes the change whole.
  if (!applied.ok()) failed_ = applied.error();
  return applied;
}

Status Writer::apply_pages(Header header, std::span<const LogPage> pages) {
  TRY(update_header(header));
  for (const LogPage& page : pages) TRY(image_.file.write_at(page.offset, page.bytes));
  TRY(image_.file.sync());
  header.log = Guid{};
  return update_header(header);
}

void Writer::abandon() {
  if (!begun_ || failed_) return;
  // As far as that goes: what stays behind is space that nobody points at.
  if (next_ != revealed_) (void)cut(revealed_);
  if (room_ != 0) (void)drop_beyond_end(room_begin_);
}

Status Writer::cut(std::uint64_t end) {
  TRY(begin(Change::kFile));
  TRY(image_.file.truncate(end));
  TRY(image_.file.sync());
  next_ = revealed_ = end;
  return {};
}

// Blocks before the bitmaps that they need; as many at once as one step of the log takes.
Status Writer::make_empty() {
  TRY(begin(Change::kFile));
  TRY(flush());
  const std::uint64_t at_once = most() * (kLogSectorBytes / 8);
  for (const bool bitmaps : {false, true}) {
    for (std::uint64_t start = 0; start < image_.table.size(); start += at_once) {
      std::vector<std::uint64_t> entries;
      for (std::uint64_t i = start; i < std::min<std::uint64_t>(start + at_once, image_.table.size()); ++i) {
        if (image_.table[i] == 0 || image_.shape.is_bitmap(i) != bitmaps) continue;
        image_.table[i] = 0;
        entries.push_back(i);
      }
      TRY(change_entries(entries, {}));
    }
  }
  return trim(0);
}

Status Writer::change_parent(const ParentNames& names) {
  TRY(begin(Change::kFile));
  TRY(flush());
  const std::vector<LogPage> pages = TRY(parent_pages(image_, names));
  TRY(change_pages(pages));
  image_.metadata.parent = names;
  return {};
}

Status Writer::mend_region_tables() {
  TRY(begin(Change::kFile));
  for (std::size_t copy = 0; copy < 2; ++copy) {
    if (image_.region_table_sound[copy]) continue;
    // Regions that need not be known are told by the sound one alone: it is copied as it is.
    std::vector<std::byte> bytes(kRegionTableBytes);
    TRY(read_exact(image_.file, kRegionTableOffsets[1 - copy], bytes, "the vhdx region table"));
    TRY(image_.file.write_at(kRegionTableOffsets[copy], bytes));
    TRY(image_.file.sync());
    image_.region_table_sound[copy] = true;
  }
  return {};
}

}  // namespace sluicebox::image::vhdx

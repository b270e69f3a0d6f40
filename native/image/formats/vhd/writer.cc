#include "image/formats/vhd/writer.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "image/formats/vhd/sector_bitmap.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::uint64_t kWriterZeroChunk = 1u << 20;

}  // namespace

Status Writer::begin() {
  if (!image_.damaged.empty()) {
    // A new block could come to lie where a wrong entry points.
    return image_.corrupt("the image cannot be written: its table of blocks is damaged", image_.header.table_offset)
        .advise("check tells where; copy what can be read into a new image");
  }
  if (!image_.ends.front || !image_.ends.end) TRY(mend_footers());
  full_.resize(image_.table.size());
  return {};
}

Status Writer::mend_footers() {
  serialize_footer(image_.footer);
  if (!image_.ends.end) {
    TRY(image_.file.write_at(next_, image_.footer.raw));
    image_.ends.end_offset = next_;
  }
  if (!image_.ends.front) TRY(image_.file.write_at(0, image_.footer.raw));
  TRY(image_.file.sync());
  image_.ends.front = image_.ends.end = image_.footer;
  image_.ends.file_bytes = std::max<std::uint64_t>(image_.ends.file_bytes, next_ + kFooterBytes);
  return {};
}

Status Writer::write(std::uint64_t offset, Bytes data) {
  TRY(begin());
  const std::uint64_t block_size = image_.header.block_size;
  while (!data.empty()) {
    const std::uint64_t block = offset / block_size;
    const std::uint64_t in_block = offset % block_size;
    const Bytes part = data.first(std::min<std::uint64_t>(data.size(), block_size - in_block));
    if (image_.table[block] == kAbsentBlock) TRY(place(block));
    written_ = true;
    TRY(image_.file.write_at(map_.data_at(block) + in_block, part));
    TRY(show(block, in_block, in_block + part.size()));
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

// Without a parent, what is not there reads as zeros already.
Status Writer::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(begin());
  const std::vector<std::byte> zeros(std::min(length, kWriterZeroChunk));
  while (length > 0) {
    const Run run = TRY(map_.find(offset, length));
    const bool reads_zero = !run.present && !has_parent();
    const std::uint64_t part = reads_zero ? run.length : std::min<std::uint64_t>(run.length, zeros.size());
    if (!reads_zero) TRY(write(offset, Bytes(zeros).first(part)));
    offset += part;
    length -= part;
  }
  return {};
}

// At the end of the file, where all behind the footer reads as zeros: the footer moves first.
Status Writer::place(std::uint64_t block) {
  const std::uint64_t end = next_ + image_.header.stride();
  if (next_ / kSectorBytes >= kAbsentBlock) {
    return Error(ErrorCode::kNoSpace, "the file is as long as its table of blocks can tell").on(image_.file.path());
  }
  written_ = true;
  TRY(reserve(end));
  const std::vector<std::byte> bits(image_.header.bitmap_bytes(), has_parent() ? std::byte{0} : std::byte{0xff});
  TRY(image_.file.write_at(next_, bits));
  image_.table[block] = static_cast<std::uint32_t>(next_ / kSectorBytes);
  changed_entries_.insert(block);
  full_[block] = !has_parent();
  next_ = end;
  return {};
}

// Its length first: else a crash could leave a file that ends in a guest's bytes, where a footer is looked for.
Status Writer::reserve(std::uint64_t end) {
  TRY(image_.file.truncate(end + kFooterBytes));
  return image_.file.write_at(end, image_.footer.raw);
}

Status Writer::show(std::uint64_t block, std::uint64_t begin, std::uint64_t end) {
  if (full_[block]) return {};
  const std::uint64_t first = begin / kSectorBytes;
  const std::uint64_t last = end / kSectorBytes;
  const std::uint64_t all = image_.header.block_size / kSectorBytes;
  Bitmap bits = TRY(map_.bitmap(block));
  if (!sector_bit(bits, first) || first + same_sectors(bits, first, last) < last) {
    set_sectors(bits, first, last);
    map_.pending()[block] = bits;
  }
  full_[block] = sector_bit(bits, 0) && same_sectors(bits, 0, all) == all;
  return {};
}

Status Writer::flush() {
  if (!written_) return {};
  TRY(image_.file.sync());
  revealed_ = next_;  // from here on, what fails may have revealed a block all the same
  if (!changed_entries_.empty() || !map_.pending().empty()) {
    is_sure_ = false;
    TRY(write_table());
    for (const auto& [block, bits] : map_.pending()) TRY(image_.file.write_at(map_.bitmap_at(block), bits));
    TRY(image_.file.sync());
    is_sure_ = true;
    changed_entries_.clear();
    map_.pending().clear();
  }
  image_.ends.end_offset = next_;
  image_.ends.file_bytes = next_ + kFooterBytes;
  written_ = false;
  return {};
}

// Sector by sector, for those are written whole or not at all.
Status Writer::write_table() {
  constexpr std::uint64_t kEntries = kSectorBytes / 4;
  std::array<std::byte, kSectorBytes> sector;
  for (auto at = changed_entries_.begin(); at != changed_entries_.end();) {
    const std::uint64_t first = align_down(*at, kEntries);
    const std::uint64_t offset = image_.header.table_offset + first * 4;
    // The last sector's rest is no entry of the disk: it stays as it is.
    TRY(read_padded(image_.file, offset, sector));
    const std::uint64_t end = std::min<std::uint64_t>(first + kEntries, image_.table.size());
    for (std::uint64_t i = first; i < end; ++i) store_be32(sector.data() + (i - first) * 4, image_.table[i]);
    TRY(image_.file.write_at(offset, sector));
    at = changed_entries_.lower_bound(first + kEntries);
  }
  return {};
}

void Writer::abandon() {
  if (!is_sure_) return;
  // What was placed, nothing points at.
  for (const std::uint64_t block : changed_entries_) image_.table[block] = kAbsentBlock;
  changed_entries_.clear();
  // As far as that goes: what stays behind is space that nobody points at.
  if (next_ != revealed_) (void)cut(revealed_);
  if (room_ != 0) (void)drop_beyond_end(room_begin_);
}

Status Writer::cut(std::uint64_t end) {
  serialize_footer(image_.footer);
  TRY(image_.file.write_at(end, image_.footer.raw));
  TRY(image_.file.sync());
  TRY(image_.file.truncate(end + kFooterBytes));
  TRY(image_.file.sync());
  next_ = revealed_ = image_.ends.end_offset = end;
  image_.ends.end = image_.footer;
  image_.ends.file_bytes = end + kFooterBytes;
  return {};
}

// Nothing lies there, but for what is there of its own kind.
bool Writer::is_free(std::uint64_t begin, std::uint64_t end, TakenRange::By but) const {
  const auto meets = [&](std::uint64_t from, std::uint64_t to) { return from < end && begin < to; };
  const std::uint64_t stride = image_.header.stride();
  return end <= next_ &&
         std::ranges::none_of(image_.taken,
                              [&](const TakenRange& each) { return each.by != but && meets(each.begin, each.end); }) &&
         std::ranges::none_of(image_.table, [&](std::uint32_t entry) {
           const std::uint64_t at = std::uint64_t{entry} * kSectorBytes;
           return entry != kAbsentBlock && meets(at, at + stride);
         });
}

// Room for any name, as this engine leaves it.
std::optional<std::uint64_t> Writer::place_of_name() const {
  for (const ParentLocator& locator : image_.header.locators) {
    if (locator.code == 0 || locator.space != kMaxNameBytes || locator.offset > next_) continue;
    if (is_free(locator.offset, locator.offset + kMaxNameBytes, TakenRange::By::kParentName)) return locator.offset;
  }
  return std::nullopt;
}

Status Writer::write_header(std::uint64_t offset, const DynamicHeader& header) {
  std::vector<std::byte> bytes(kHeaderBytes);
  serialize_dynamic_header(header, bytes);
  return image_.file.write_at(offset, bytes);
}

// The one in front first: it is the one that speaks.
Status Writer::write_footers() {
  is_sure_ = false;
  serialize_footer(image_.footer);
  TRY(image_.file.write_at(0, image_.footer.raw));
  TRY(image_.file.sync());
  TRY(image_.file.write_at(next_, image_.footer.raw));
  TRY(image_.file.sync());
  image_.ends.front = image_.ends.end = image_.footer;
  is_sure_ = true;
  return {};
}

Status Writer::point_footers_at(std::uint64_t header) {
  image_.footer.data_offset = header;
  return write_footers();
}

Status Writer::change_parent(const std::optional<Parent>& parent) {
  TRY(begin());
  TRY(flush());
  const std::uint64_t home = image_.footer.data_offset;
  const std::optional<std::uint64_t> old_name = place_of_name();
  DynamicHeader header = image_.header;
  header.parent_id = parent ? parent->id : Guid{};
  header.parent_time = parent ? parent->time : 0;
  if (!parent) {
    header.parent_name.clear();
    header.locators = {};
  }
  const bool renames = parent && parent->name;
  const auto write_name = [&](std::uint64_t offset) -> Status {
    if (!renames) return {};
    set_parent_name(header, parent->path, *parent->name, offset);
    std::vector<std::byte> bytes = parent->name->bytes;
    bytes.resize(kMaxNameBytes);
    return image_.file.write_at(offset, bytes);
  };
  // Behind the blocks: the name, and a header that is only needed on the way.
  const std::uint64_t name_at = next_;
  const std::uint64_t header_at = name_at + (renames ? kMaxNameBytes : 0);
  const std::uint64_t end = header_at + kHeaderBytes;
  TRY(reserve(end));
  TRY(write_name(name_at));
  TRY(write_header(header_at, header));
  TRY(image_.file.sync());
  next_ = revealed_ = image_.ends.end_offset = end;
  if (!parent) image_.footer.type = DiskType::kDynamic;
  TRY(point_footers_at(header_at));
  // The change stands. What follows is housekeeping.
  if (old_name) TRY(write_name(*old_name));
  TRY(write_header(home, header));
  TRY(image_.file.sync());
  TRY(point_footers_at(home));
  image_.header = header;
  image_.parent = parent ? std::optional(parent->path) : std::nullopt;
  image_.place_locators();
  return cut(renames && !old_name ? header_at : name_at);
}

Status Writer::make_empty() {
  TRY(begin());
  TRY(flush());
  for (std::uint64_t block = 0; block < image_.table.size(); ++block) {
    if (image_.table[block] == kAbsentBlock) continue;
    image_.table[block] = kAbsentBlock;
    changed_entries_.insert(block);
  }
  if (changed_entries_.empty()) return {};
  TRY(write_table());
  TRY(image_.file.sync());
  changed_entries_.clear();
  full_.assign(full_.size(), false);
  return trim(0);
}

}  // namespace sluicebox::image::vhd

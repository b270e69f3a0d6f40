#include "image/formats/vhdx/writer.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/vhdx/block_map.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::uint64_t kZerosPerWrite = 1u << 20;
// From here on, more updates of the header than one would ever do are left before its number starts anew.
constexpr std::uint64_t kLastSequence = ~std::uint64_t{0} - (std::uint64_t{1} << 32);

}  // namespace

Status Writer::begin(Change change) {
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
    const std::uint64_t block = offset / block_size;
    const std::uint64_t in_block = offset % block_size;
    const Bytes part = data.first(std::min<std::uint64_t>(data.size(), block_size - in_block));
    const std::uint64_t entry = image_.shape.entry_of_block(block);
    if (state_of(image_.table[entry]) != BlockState::kPresent) TRY(place(block));
    written_ = true;
    TRY(image_.file.write_at(offset_of(image_.table[entry]) + in_block, part));
    offset += part.size();
    data = data.subspan(part.size());
  }
  return {};
}

// What is not there reads as zeros already.
Status Writer::write_zeros(std::uint64_t offset, std::uint64_t length) {
  TRY(begin(Change::kDisk));
  const std::vector<std::byte> zeros(std::min(length, kZerosPerWrite));
  while (length > 0) {
    const Run run = TRY(find_run(image_, offset, length));
    const bool data = run.holds == Holds::kData;
    const std::uint64_t part = data ? std::min<std::uint64_t>(run.length, zeros.size()) : run.length;
    if (data) TRY(write(offset, Bytes(zeros).first(part)));
    offset += part;
    length -= part;
  }
  return {};
}

// Past the end of the file, where everything reads as zeros.
Status Writer::place(std::uint64_t block) {
  if (next_ + image_.metadata.block_size > kMaxFileBytes) {
    return Error(ErrorCode::kNoSpace, "the file is as long as this engine reads it").on(image_.file.path());
  }
  written_ = true;
  TRY(image_.file.truncate(next_ + image_.metadata.block_size));
  const std::uint64_t entry = image_.shape.entry_of_block(block);
  image_.table[entry] = entry_of(BlockState::kPresent, next_);
  const std::uint64_t at = image_.regions.table.offset + entry * 8;
  changed_pages_.insert(align_down(at, kLogSectorBytes));
  next_ += image_.metadata.block_size;
  return {};
}

Status Writer::flush() {
  if (!written_) return {};
  TRY(image_.file.sync());
  revealed_ = next_;  // from here on, what fails may have revealed a block all the same
  if (!changed_pages_.empty()) TRY(change_table());
  written_ = false;
  return {};
}

Status Writer::change_table() {
  const std::size_t most = most_pages(image_.header.log_length);
  while (!changed_pages_.empty()) {
    std::vector<LogPage> pages;
    for (const std::uint64_t offset : changed_pages_) {
      if (pages.size() == most) break;
      pages.push_back(TRY(table_page(offset)));
    }
    TRY(change_pages(pages));
    for (const LogPage& page : pages) changed_pages_.erase(page.offset);
  }
  return {};
}

// What lies behind the last entry stays as it is.
Result<LogPage> Writer::table_page(std::uint64_t offset) const {
  LogPage page{.offset = offset, .bytes = std::vector<std::byte>(kLogSectorBytes)};
  TRY(read_exact(image_.file, offset, page.bytes, "the vhdx table of blocks"));
  const std::uint64_t first = (offset - image_.regions.table.offset) / 8;
  const std::uint64_t end = std::min<std::uint64_t>(first + kLogSectorBytes / 8, image_.table.size());
  for (std::uint64_t i = first; i < end; ++i) store_le64(page.bytes.data() + (i - first) * 8, image_.table[i]);
  return page;
}

// A header that names a log finds a whole entry there: it was durable before. Of an id that no entry had before, so
// that none of an earlier change is ever taken for this one's.
Status Writer::change_pages(std::span<const LogPage> pages) {
  Header header = image_.header;
  header.log = TRY(random_guid());
  const std::uint64_t bytes = TRY(image_.file.size());
  TRY(image_.file.write_at(header.log_offset, serialize_entry(pages, header.log, bytes)));
  TRY(image_.file.sync());
  TRY(update_header(header));
  for (const LogPage& page : pages) TRY(image_.file.write_at(page.offset, page.bytes));
  TRY(image_.file.sync());
  header.log = Guid{};
  return update_header(header);
}

void Writer::abandon() {
  if (!begun_ || next_ == revealed_) return;
  // As far as that goes: what stays behind is space that nobody points at.
  (void)cut(revealed_);
}

Status Writer::cut(std::uint64_t end) {
  TRY(begin(Change::kFile));
  TRY(image_.file.truncate(end));
  TRY(image_.file.sync());
  next_ = revealed_ = end;
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

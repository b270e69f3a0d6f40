#include "image/formats/vhd/image_state.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/block_overlap.h"
#include "image/formats/vhd/parent.h"
#include "image/printable.h"

namespace sluicebox::image::vhd {

namespace {

constexpr std::size_t kReadChunk = 1u << 20;
constexpr std::uint64_t kPlacedBytes = sizeof(PlacedBlock);

std::optional<Footer> footer_at_end(const std::vector<std::byte>& tail, std::size_t length) {
  if (tail.size() < length) return std::nullopt;
  auto footer = parse_footer(Bytes(tail).last(length));
  return footer.ok() ? std::optional(std::move(footer).value()) : std::nullopt;
}

bool meets(const TakenRange& range, std::uint64_t begin, std::uint64_t end) {
  return begin < range.end && range.begin < end;
}

class Loader {
 public:
  Loader(ImageState& image, const LoadOptions& options) : image_(image), options_(options) {}

  Status run() {
    image_.ends = TRY(read_ends(image_.file));
    const Footer* footer = speaking(image_.ends);
    if (footer == nullptr) {
      if (image_.ends.front_error) return Error(*image_.ends.front_error).on(image_.file.path());
      return Error(ErrorCode::kImageFormat, printable(image_.file.path()) + " is no vhd: it has no footer")
          .on(image_.file.path());
    }
    image_.footer = *footer;
    image_.disk_bytes = footer->disk_bytes();
    if (footer->type == DiskType::kFixed) return check_fixed();
    TRY(load_header());
    return options_.header_only ? ok_status() : load_table();
  }

 private:
  Status check_fixed() const {
    if (!image_.ends.end || image_.ends.end->type != DiskType::kFixed) {
      return image_.corrupt("a fixed vhd without a footer at its end", image_.ends.end_offset);
    }
    if (image_.disk_bytes <= image_.ends.end_offset) return {};
    return image_.corrupt(
        "the disk of " + std::to_string(image_.disk_bytes) + " bytes is cut short by the end of the file",
        image_.ends.end_offset);
  }

  Status load_header() {
    const std::uint64_t at = image_.footer.data_offset;
    const auto end = checked_add(at, kHeaderBytes);
    if (!end || at < kFooterBytes || at % kSectorBytes != 0 || *end > image_.ends.file_bytes) {
      return image_.corrupt("vhd footer: the dynamic header cannot lie at " + std::to_string(at),
                            footer_at::kDataOffset);
    }
    std::vector<std::byte> raw(kHeaderBytes);
    TRY(read_exact(image_.file, at, raw, "the vhd dynamic header"));
    auto header = parse_dynamic_header(raw);
    if (!header.ok()) return std::move(header).error().on(image_.file.path());
    image_.header = std::move(header).value();
    image_.taken = {{0, kFooterBytes}, {at, *end}};
    TRY(place_table());
    if (image_.footer.type != DiskType::kDifferencing) return {};
    image_.place_locators();
    image_.parent = TRY(parent_path(image_.file, image_.header));
    return {};
  }

  Status place_table() {
    const DynamicHeader& header = image_.header;
    if (image_.block_count() > header.max_entries) {
      return image_.corrupt(
          "vhd dynamic header: " + std::to_string(header.max_entries) + " blocks do not cover the disk",
          image_.footer.data_offset + header_at::kMaxEntries);
    }
    const auto end = checked_add(header.table_offset, header.table_bytes());
    if (!end || header.table_offset % kSectorBytes != 0 || *end > image_.ends.file_bytes ||
        std::ranges::any_of(image_.taken, [&](const auto& each) { return meets(each, header.table_offset, *end); })) {
      return image_.corrupt(
          "vhd dynamic header: the table of blocks cannot lie at " + std::to_string(header.table_offset),
          image_.footer.data_offset + header_at::kTableOffset);
    }
    image_.take_table();
    return {};
  }

  Status load_table() {
    const std::uint64_t bytes = image_.block_count() * 4;
    if (bytes > kMaxTableBytes) {
      return Error(ErrorCode::kUnsupported,
                   "the table of blocks is larger than " + std::to_string(kMaxTableBytes >> 20) + " MiB")
          .on(image_.file.path());
    }
    TRY(image_.tables.take(bytes));
    image_.table.resize(image_.block_count());
    std::vector<std::byte> raw(std::min<std::uint64_t>(bytes, kReadChunk));
    for (std::uint64_t done = 0; done < bytes;) {
      if (options_.cancel != nullptr) TRY(options_.cancel->check());
      const MutableBytes part = MutableBytes(raw).first(std::min<std::uint64_t>(raw.size(), bytes - done));
      TRY(read_exact(image_.file, image_.header.table_offset + done, part, "the vhd table of blocks"));
      for (std::size_t i = 0; i < part.size(); i += 4) image_.table[(done + i) / 4] = load_be32(part.data() + i);
      done += part.size();
    }
    return judge_entries();
  }

  // Where blocks lie over one another, or over what tells about them, nobody can say whose the bytes are.
  Status judge_entries() {
    const auto present = static_cast<std::uint64_t>(
        std::ranges::count_if(image_.table, [](std::uint32_t entry) { return entry != kAbsentBlock; }));
    TRY(image_.tables.take(present * kPlacedBytes));
    std::vector<PlacedBlock> placed;
    placed.reserve(present);
    for (std::size_t i = 0; i < image_.table.size(); ++i) {
      if (image_.table[i] == kAbsentBlock) continue;
      const std::uint64_t begin = std::uint64_t{image_.table[i]} * kSectorBytes;
      const std::uint64_t end = begin + image_.header.stride();
      if (end > image_.data_end() ||
          std::ranges::any_of(image_.taken, [&](const auto& each) { return meets(each, begin, end); })) {
        mark(i);
        continue;
      }
      placed.push_back({.begin = begin, .end = end, .index = static_cast<std::uint32_t>(i)});
    }
    find_overlaps(placed, [this](std::uint32_t index) { mark(index); });
    image_.tables.give_back(present * kPlacedBytes);
    return {};
  }

  void mark(std::size_t block) {
    image_.damaged.resize(image_.table.size());
    image_.damaged[block] = true;
  }

  ImageState& image_;
  const LoadOptions& options_;
};

}  // namespace

void ImageState::take_table() {
  std::erase_if(taken, [](const TakenRange& range) { return range.by == TakenRange::By::kTable; });
  if (header.table_bytes() == 0) return;
  taken.push_back({header.table_offset, header.table_offset + header.table_bytes(), TakenRange::By::kTable});
}

Status ImageState::can_have(std::uint64_t bytes) const {
  const auto refuse = [&](const std::string& text) {
    return Error(ErrorCode::kInvalidArgument, "size: " + text).on(file.path());
  };
  if (bytes > kMaxDiskBytes) {
    return refuse(std::to_string(bytes) + " bytes are more than the 2040 GiB of a vhd").advise("convert it to a vhdx");
  }
  // Others look for a footer in front first, and would take this one for it.
  if (footer.type == DiskType::kFixed)
    return bytes == 0 ? refuse("a fixed vhd holds at least one sector") : ok_status();
  if (footer.is_of_xen()) {
    return Error(ErrorCode::kUnsupported,
                 printable(file.path()) + " is one of Xen's, which keep a map behind the table")
        .on(file.path())
        .advise("convert it, and resize the copy");
  }
  if (blocks_of(bytes) * 4 <= kMaxTableBytes) return {};
  return Error(ErrorCode::kUnsupported, "size: " + std::to_string(bytes) + " bytes in blocks of " +
                                            std::to_string(header.block_size) + " need a table above " +
                                            std::to_string(kMaxTableBytes >> 20) + " MiB; the disk can have " +
                                            std::to_string(kMaxTableBytes / 4 * header.block_size))
      .on(file.path())
      .advise("convert it to a vhd with a larger blockSize");
}

// The room that this engine leaves for another name is no block's either.
void ImageState::place_locators() {
  std::erase_if(taken, [](const TakenRange& range) { return range.by == TakenRange::By::kParentName; });
  for (const ParentLocator& locator : header.locators) {
    const auto fits = [&](std::uint64_t length) {
      const auto end = checked_add(locator.offset, length);
      return end && *end <= data_end();
    };
    if (locator.code == 0 || locator.length == 0 || !fits(locator.length)) continue;
    const bool roomy = locator.space == kMaxNameBytes && locator.length < kMaxNameBytes && fits(kMaxNameBytes);
    const std::uint64_t length = roomy ? kMaxNameBytes : locator.length;
    taken.push_back({locator.offset, locator.offset + length, TakenRange::By::kParentName});
  }
}

Result<Ends> read_ends(const File& file) {
  Ends ends;
  ends.file_bytes = TRY(file.size());
  std::vector<std::byte> head(kFooterBytes);
  if (TRY(file.read_at(0, head)) == head.size()) {
    auto front = parse_footer(head);
    if (front.ok()) {
      ends.front = std::move(front).value();
    } else if (front.error().code != ErrorCode::kImageFormat) {
      ends.front_error = front.error();
    }
  }
  std::vector<std::byte> tail(std::min<std::uint64_t>(ends.file_bytes, kFooterBytes));
  TRY(read_exact(file, ends.file_bytes - tail.size(), tail, "the end"));
  for (const std::size_t length : {kFooterBytes, kOldFooterBytes}) {
    ends.end = footer_at_end(tail, length);
    ends.end_offset = ends.file_bytes - std::min<std::uint64_t>(length, ends.file_bytes);
    if (ends.end && ends.end_offset % kSectorBytes == 0) return ends;
  }
  ends.end.reset();
  ends.end_offset = checked_align_up(ends.file_bytes, kSectorBytes).value_or(ends.file_bytes);
  return ends;
}

const Footer* speaking(const Ends& ends) {
  const bool fixed = ends.end && ends.end->type == DiskType::kFixed;
  if (fixed && (!ends.front || ends.end->fits(ends.end_offset))) return &*ends.end;
  if (ends.front) return &*ends.front;
  return ends.end ? &*ends.end : nullptr;
}

Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options) {
  auto image = std::make_unique<ImageState>(file, options.budget);
  TRY(Loader(*image, options).run());
  return image;
}

}  // namespace sluicebox::image::vhd

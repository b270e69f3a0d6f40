#include "image/formats/vhdx/image_state.h"

#include <algorithm>

#include "base/checked.h"
#include "image/formats/block_overlap.h"
#include "image/formats/vhdx/log.h"
#include "image/printable.h"

namespace sluicebox::image::vhdx {

namespace {

constexpr std::size_t kReadAtOnce = 1u << 20;

class Loader {
 public:
  Loader(ImageState& image, const LoadOptions& options) : image_(image), options_(options) {}

  Status run() {
    TRY(check_signature());
    TRY(load_header());
    if (image_.has_log()) TRY(replay_log());
    file_bytes_ = TRY(image_.file.size());
    TRY(load_regions());
    TRY(load_metadata());
    TRY(check_shape());
    return options_.header_only ? ok_status() : load_table();
  }

 private:
  Status check_signature() {
    std::vector<std::byte> signature(kFileSignatureBytes);
    TRY(read_padded(image_.file, 0, signature));
    if (std::memcmp(signature.data(), kFileSignature, kFileSignatureBytes) == 0) return {};
    return Error(ErrorCode::kImageFormat, printable(image_.file.path()) + " is no vhdx: it does not begin as one")
        .on(image_.file.path());
  }

  Result<std::optional<Header>> read_header(unsigned copy) {
    std::vector<std::byte> bytes(kHeaderBytes);
    TRY(read_padded(image_.file, kHeaderOffsets[copy], bytes));
    return parse_header(bytes);
  }

  Status load_header() {
    const auto first = TRY(read_header(0));
    const auto second = TRY(read_header(1));
    auto current = current_header(first, second);
    if (!current.ok()) return std::move(current).error().on(image_.file.path());
    image_.header = current->header;
    image_.header_copy = current->copy;
    const std::uint64_t at = image_.header.log_offset;
    const auto end = checked_add(at, image_.header.log_length);
    if (!end || at < kHeaderSectionBytes || at % kMiB != 0 || image_.header.log_length % kMiB != 0 ||
        *end > kMaxFileBytes) {
      return image_.corrupt("the vhdx header places the log at " + std::to_string(at), kHeaderOffsets[current->copy]);
    }
    image_.taken = {{0, kHeaderSectionBytes}, {at, *end}};
    return {};
  }

  // A log that was begun and has no sound entry was cut off before anything was changed.
  Status replay_log() {
    const Header& header = image_.header;
    if (header.log_version != 0) {
      return Error(ErrorCode::kUnsupported,
                   "the vhdx has a log of version " + std::to_string(header.log_version) + " to replay")
          .on(image_.file.path());
    }
    if (header.log_length > kMaxLogBytes) {
      return Error(ErrorCode::kUnsupported,
                   "the vhdx has a log above " + std::to_string(kMaxLogBytes / kMiB) + " MiB to replay")
          .on(image_.file.path());
    }
    const std::uint64_t bytes = TRY(image_.file.size());
    if (header.log_offset + header.log_length > bytes) {
      return image_.corrupt("the log is cut short by the end of the file", bytes);
    }
    // The ring, and what of it is kept.
    TRY(image_.tables.take(2 * std::size_t{header.log_length}));
    std::vector<std::byte> ring(header.log_length);
    TRY(read_exact(image_.file, header.log_offset, ring, "the log"));
    const std::vector<LogEntry> entries = active_sequence(ring, header.log);
    std::uint64_t file_bytes = bytes;
    for (const LogEntry& entry : entries) {
      if (entry.flushed_bytes > bytes) {
        return image_.corrupt("the file was " + std::to_string(entry.flushed_bytes) +
                                  " bytes long when its log was written, and is cut short now",
                              bytes);
      }
      file_bytes = std::max(file_bytes, entry.last_bytes);
    }
    if (file_bytes > kMaxFileBytes) return image_.corrupt("the log asks for a file that is too long", bytes);
    if (file_bytes > bytes) image_.file.extend(file_bytes);
    for (const LogEntry& entry : entries) {
      if (options_.cancel != nullptr) TRY(options_.cancel->check());
      TRY(each_change(ring, entry, [&](LogChange change) { return apply(std::move(change), file_bytes); }));
    }
    image_.tables.give_back(header.log_length);
    return {};
  }

  Status apply(LogChange change, std::uint64_t file_bytes) {
    const Header& header = image_.header;
    // Zeros may be asked for as far as a block reaches; past the end of the file there is nothing to make zero.
    if (change.zeros && change.offset < file_bytes) change.length = std::min(change.length, file_bytes - change.offset);
    const auto end = checked_add(change.offset, change.length);
    const bool in_log = end && change.offset < header.log_offset + header.log_length && header.log_offset < *end;
    if (!end || *end > file_bytes || change.offset < kRegionTableOffsets[0] || in_log) {
      return image_.corrupt("the log changes the file at " + std::to_string(change.offset) + ", where it must not",
                            header.log_offset);
    }
    image_.file.apply(std::move(change));
    return {};
  }

  Status load_regions() {
    std::optional<RegionTable> regions;
    std::optional<Error> error;
    for (std::size_t copy = 0; copy < 2; ++copy) {
      std::vector<std::byte> bytes(kRegionTableBytes);
      TRY(read_padded(image_.file, kRegionTableOffsets[copy], bytes));
      auto parsed = parse_region_table(bytes);
      image_.region_table_sound[copy] = parsed.ok();
      if (!parsed.ok() && parsed.error().code == ErrorCode::kUnsupported) {
        return std::move(parsed).error().on(image_.file.path());
      }
      if (parsed.ok() && !regions) regions = parsed.value();
      if (!parsed.ok() && !error) error = parsed.error();
    }
    if (!regions) return std::move(*error).on(image_.file.path());
    image_.regions = *regions;
    for (const Region& region : {regions->table, regions->metadata}) {
      const bool in_log = region.offset < image_.taken[1].end && image_.taken[1].begin < region.end();
      if (in_log || region.end() > file_bytes_) {
        return image_.corrupt("the vhdx region table: a region cannot lie at " + std::to_string(region.offset),
                              kRegionTableOffsets[0]);
      }
      image_.taken.push_back({region.offset, region.end()});
    }
    return {};
  }

  Status load_metadata() {
    const Region& region = image_.regions.metadata;
    std::vector<std::byte> bytes(kMetadataTableBytes);
    TRY(read_exact(image_.file, region.offset, bytes, "the vhdx metadata"));
    auto table = parse_metadata_table(bytes, region.length);
    if (!table.ok()) return std::move(table).error().on(image_.file.path()).at(region.offset);
    auto metadata = parse_metadata(table.value(), [&](const MetadataItem& item) -> Result<std::vector<std::byte>> {
      std::vector<std::byte> content(item.length);
      TRY(read_exact(image_.file, region.offset + item.offset, content, "the vhdx metadata"));
      return content;
    });
    if (!metadata.ok()) return std::move(metadata).error().on(image_.file.path()).at(region.offset);
    image_.metadata = std::move(metadata).value();
    return {};
  }

  Status check_shape() {
    image_.shape = image_.shape_of(image_.metadata.disk_bytes);
    const std::uint64_t bytes = image_.shape.entries() * 8;
    if (bytes > image_.regions.table.length) {
      return image_.corrupt("the table of blocks does not cover the disk", image_.regions.table.offset);
    }
    if (bytes <= kMaxTableBytes) return {};
    return Error(ErrorCode::kUnsupported,
                 "the table of blocks is larger than " + std::to_string(kMaxTableBytes / kMiB) + " MiB")
        .on(image_.file.path());
  }

  Status load_table() {
    const std::uint64_t bytes = image_.shape.entries() * 8;
    TRY(image_.tables.take(bytes));
    image_.table.resize(image_.shape.entries());
    std::vector<std::byte> raw(std::min<std::uint64_t>(bytes, kReadAtOnce));
    for (std::uint64_t done = 0; done < bytes;) {
      if (options_.cancel != nullptr) TRY(options_.cancel->check());
      const MutableBytes part = MutableBytes(raw).first(std::min<std::uint64_t>(raw.size(), bytes - done));
      TRY(read_exact(image_.file, image_.regions.table.offset + done, part, "the vhdx table of blocks"));
      for (std::size_t i = 0; i < part.size(); i += 8) image_.table[(done + i) / 8] = load_le64(part.data() + i);
      done += part.size();
    }
    return judge_entries();
  }

  bool is_lawful(std::uint64_t index) const {
    const auto state = static_cast<unsigned>(state_of(image_.table[index]));
    if (image_.shape.is_bitmap(index)) return !image_.shape.has_parent || state == 0 || state == 6;
    if (state != 7) return state != 4;
    return image_.shape.has_parent &&
           state_of(image_.table[image_.shape.bitmap_of_entry(index)]) == BlockState::kPresent;
  }

  // Where blocks lie over one another, or over what tells about them, nobody can say whose the bytes are.
  Status judge_entries() {
    std::uint64_t present = 0;
    for (std::uint64_t i = 0; i < image_.table.size(); ++i) present += image_.has_place(i) ? 1 : 0;
    TRY(image_.tables.take(present * sizeof(PlacedBlock)));
    std::vector<PlacedBlock> placed;
    placed.reserve(present);
    for (std::uint64_t i = 0; i < image_.table.size(); ++i) {
      if (!is_lawful(i)) mark(i);
      if (!image_.has_place(i)) continue;
      const std::uint64_t begin = offset_of(image_.table[i]);
      const auto end = checked_add(begin, image_.bytes_of(i));
      if (!end || *end > file_bytes_ || std::ranges::any_of(image_.taken, [&](const TakenRange& range) {
            return begin < range.end && range.begin < *end;
          })) {
        mark(i);
        continue;
      }
      placed.push_back({.begin = begin, .end = *end, .index = static_cast<std::uint32_t>(i)});
    }
    find_overlaps(placed, [this](std::uint32_t index) { mark(index); });
    image_.tables.give_back(present * sizeof(PlacedBlock));
    return {};
  }

  void mark(std::uint64_t entry) {
    image_.damaged.resize(image_.table.size());
    image_.damaged[entry] = true;
  }

  ImageState& image_;
  const LoadOptions& options_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options) {
  auto image = std::make_unique<ImageState>(file, options.budget);
  TRY(Loader(*image, options).run());
  return image;
}

}  // namespace sluicebox::image::vhdx

// image_state.h: one open VHD, read and judged: its footers, and of a dynamic one its header and table of blocks.
// Knows: one file. Does not know: guests' bytes, writing.
// Threads: read by several at once while nobody writes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "image/file.h"
#include "image/formats/vhd/dynamic_header.h"
#include "image/formats/vhd/footer.h"
#include "image/metadata_budget.h"

namespace sluicebox::image::vhd {

// The footers that a file has: the copy in front, and the one at the end.
struct Ends {
  std::optional<Footer> front, end;
  std::uint64_t file_bytes = 0;
  std::uint64_t end_offset = 0;      // of the footer at the end; of where it would be, if there is none
  std::optional<Error> front_error;  // why a footer that begins with the cookie is none
};
Result<Ends> read_ends(const File& file);
// Which of them speaks for the image. A fixed image's footer is out of its guest's reach, and what lies in front of it
// is the guest's: so it comes first, if it fits the file. Nothing when neither speaks.
const Footer* speaking(const Ends& ends);

// Bytes of the file that are not a block's.
struct TakenRange {
  enum class By : std::uint8_t { kHeaders, kTable, kParentName };
  std::uint64_t begin = 0, end = 0;
  By by = By::kHeaders;
};

struct ImageState {
  ImageState(File& image_file, std::shared_ptr<MetadataBudget> budget)
      : file(image_file), tables(budget ? std::move(budget) : std::make_shared<MetadataBudget>()) {}

  File& file;
  MetadataShare tables;
  Ends ends;
  Footer footer;
  std::uint64_t disk_bytes = 0;

  // Of dynamic and differencing ones.
  DynamicHeader header;
  std::vector<TakenRange> taken;
  std::optional<std::string> parent;  // differencing, and it has a name that can be looked for
  std::vector<std::uint32_t> table;   // an entry a block of the disk: its sector in the file, or kAbsentBlock
  std::vector<bool> damaged;          // blocks whose entry cannot be right; empty when there are none

  // Takes what the header's locators name, instead of what was taken for them before.
  void place_locators();
  // Takes what the header says of the table, instead of what was taken for it before.
  void take_table();
  std::uint64_t blocks_of(std::uint64_t bytes) const { return div_up(bytes, header.block_size); }
  std::uint64_t block_count() const { return blocks_of(disk_bytes); }
  // kInvalidArgument for what no such disk can be, kUnsupported where the table would be larger than this engine's are.
  Status can_have(std::uint64_t bytes) const;
  bool is_damaged(std::uint64_t block) const { return !damaged.empty() && damaged[block]; }
  // How far blocks may reach.
  std::uint64_t data_end() const { return ends.end ? ends.end_offset : ends.file_bytes; }
  Error corrupt(std::string text, std::uint64_t at) const {
    return Error(ErrorCode::kImageCorrupt, std::move(text)).on(file.path()).at(at);
  }

 private:
  static std::uint64_t div_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }
};

struct LoadOptions {
  bool header_only = false;
  std::shared_ptr<MetadataBudget> budget = nullptr;
  const CancelToken* cancel = nullptr;
};
Result<std::unique_ptr<ImageState>> load_image(File& file, const LoadOptions& options);

}  // namespace sluicebox::image::vhd

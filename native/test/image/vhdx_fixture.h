// vhdx_fixture.h: what the VHDX tests share.
// Knows: the planner, the opener, where a planned image has its parts. Threads: one test.
#pragma once

#include <fcntl.h>

#include "image/formats/vhdx/block_table.h"
#include "image/formats/vhdx/crc32c.h"
#include "image/formats/vhdx/header.h"
#include "image/formats/vhdx/log.h"
#include "image/formats/vhdx/metadata.h"
#include "image/formats/vhdx/plan.h"
#include "image/formats/vhdx/region_table.h"
#include "image/formats/vhdx/vhdx.h"
#include "test/image/format_fixture.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::vhdx {

using testing::Image;
using testing::must;

// Of a planned image with a log of 1 MiB, and a small table.
inline constexpr std::uint64_t kLogAt = 1u << 20;
inline constexpr std::uint64_t kTableAt = 2u << 20;
inline constexpr std::uint64_t kMetadataAt = 3u << 20;
inline constexpr std::uint64_t kDataAt = 4u << 20;

inline Guid id_of(unsigned char number) {
  Guid id{};
  id.fill(std::byte{number});
  return id;
}

inline PlanOptions disk(std::uint64_t size, std::uint64_t block_size = kMiB, bool fixed = false) {
  return {.virtual_size = size,
          .fixed = fixed,
          .block_size = block_size,
          .file_write = id_of(1),
          .data_write = id_of(2),
          .page83 = id_of(3)};
}

inline PlanOptions over(PlanOptions options, const std::string& parent, unsigned char parent_link = 2) {
  options.data_write = id_of(0x22);
  options.parent_path = parent;
  options.parent_link = id_of(parent_link);
  return options;
}

inline Image planned(const PlanOptions& options) {
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  return testing::apply(must(plan_vhdx(options, scratch)));
}

inline Result<std::unique_ptr<Block>> open_either(File& file, bool writable) {
  return open_vhdx(file, {.writable = writable});
}
inline std::unique_ptr<Block> open_readable(File& file) { return must(open_vhdx(file, {})); }
inline std::unique_ptr<Block> open_writable(File& file) { return must(open_vhdx(file, {.writable = true})); }

inline std::optional<Header> header_of(const Image& image, std::size_t copy) {
  return parse_header(Bytes(image).subspan(kHeaderOffsets[copy], kHeaderBytes));
}
inline Header newest_header(const Image& image) {
  return must(current_header(header_of(image, 0), header_of(image, 1))).header;
}
inline void put_header(Image& image, std::size_t copy, const Header& header) {
  std::ranges::copy(serialize_header(header), image.begin() + static_cast<std::ptrdiff_t>(kHeaderOffsets[copy]));
}
// Both copies, changed and with their checksums right.
template <typename Change>
void edit_headers(Image& image, Change change) {
  for (const std::size_t copy : {0u, 1u}) {
    Header header = *header_of(image, copy);
    change(header);
    put_header(image, copy, header);
  }
}
// Bytes of a structure with its checksum at byte 4 made right.
inline void seal(Image& image, std::uint64_t at, std::size_t length) {
  const Bytes bytes = Bytes(image).subspan(at, length);
  store_le32(image.data() + at + 4, crc32c_padded(bytes, 4, length));
}
template <typename Change>
void edit_region_tables(Image& image, Change change) {
  for (const std::uint64_t at : kRegionTableOffsets) {
    change(image.data() + at);
    seal(image, at, kRegionTableBytes);
  }
}

inline std::uint64_t table_entry(const Image& image, std::uint64_t entry) {
  return load_le64(image.data() + kTableAt + entry * 8);
}
inline void set_table_entry(Image& image, std::uint64_t entry, std::uint64_t value) {
  store_le64(image.data() + kTableAt + entry * 8, value);
}

}  // namespace sluicebox::image::vhdx

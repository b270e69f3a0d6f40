// vhd_fixture.h: what the VHD tests share.
// Knows: the planner, the opener. Threads: one test.
#pragma once

#include <fcntl.h>

#include "image/formats/vhd/dynamic_header.h"
#include "image/formats/vhd/footer.h"
#include "image/formats/vhd/plan.h"
#include "image/formats/vhd/vhd.h"
#include "test/image/format_fixture.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::vhd {

using testing::Image;
using testing::must;

inline constexpr std::uint64_t kSmallBlock = 512u << 10;
inline constexpr std::uint64_t kTableAt = 1536;

inline Guid id_of(unsigned char number) {
  Guid id{};
  id.fill(std::byte{number});
  return id;
}

inline PlanOptions dynamic_disk(std::uint64_t size, std::uint64_t block_size = kSmallBlock) {
  return {.virtual_size = size, .fixed = false, .block_size = block_size, .id = id_of(0x11), .timestamp = 1};
}
inline PlanOptions fixed_disk(std::uint64_t size) {
  return {.virtual_size = size, .fixed = true, .id = id_of(0x11), .timestamp = 1};
}

inline PlanOptions over(PlanOptions options, const std::string& parent, unsigned char parent_id = 0x11) {
  options.id = id_of(0x22);
  options.parent_path = parent;
  options.parent_id = id_of(parent_id);
  options.parent_time = 7;
  return options;
}

inline Image planned(const PlanOptions& options) {
  std::vector<std::byte> scratch(must(plan_scratch_size(options)));
  return testing::apply(must(plan_vhd(options, scratch)));
}

inline Result<std::unique_ptr<Block>> open_either(File& file, bool writable) {
  return open_vhd(file, {.writable = writable});
}
inline std::unique_ptr<Block> open_readable(File& file) { return must(open_vhd(file, {})); }
inline std::unique_ptr<Block> open_writable(File& file) { return must(open_vhd(file, {.writable = true})); }

// The footer at `offset` with its fields changed and its checksum right.
template <typename Change>
void edit_footer(Image& image, std::uint64_t offset, Change change) {
  Footer footer = must(parse_footer(Bytes(image).subspan(offset, kFooterBytes)));
  change(footer);
  serialize_footer(footer);
  std::copy(footer.raw.begin(), footer.raw.end(), image.begin() + static_cast<std::ptrdiff_t>(offset));
}
// Both of a dynamic image's.
template <typename Change>
void edit_footers(Image& image, Change change) {
  edit_footer(image, 0, change);
  edit_footer(image, image.size() - kFooterBytes, change);
}
template <typename Change>
void edit_header(Image& image, Change change) {
  DynamicHeader header = must(parse_dynamic_header(Bytes(image).subspan(kFooterBytes, kHeaderBytes)));
  change(header);
  serialize_dynamic_header(header, MutableBytes(image).subspan(kFooterBytes, kHeaderBytes));
}

}  // namespace sluicebox::image::vhd

// vhd_open_fuzz.cc: any bytes are refused, or read, checked, written and repaired without a crash, a hang or a lie.
// Input: a file; it is looked at as it is, and once more with the checksums of its footers and its header made right.
#include <vector>

#include "base/checked.h"
#include "fuzz/block_checks.h"
#include "image/formats/vhd/footer.h"
#include "image/formats/vhd/layout.h"
#include "image/formats/vhd/vhd.h"

namespace sluicebox::image::fuzz {

namespace {

void seal(std::vector<std::byte>& bytes, std::uint64_t at, std::size_t length, std::size_t checksum_at) {
  const auto end = checked_add(at, length);
  if (!end || *end > bytes.size()) return;
  const std::uint32_t sum = vhd::checksum(Bytes(bytes).subspan(at, length), checksum_at);
  store_be32(bytes.data() + at + checksum_at, sum);
}

std::vector<std::byte> sealed(std::vector<std::byte> bytes) {
  if (bytes.size() < vhd::kFooterBytes) return bytes;
  seal(bytes, 0, vhd::kFooterBytes, vhd::footer_at::kChecksum);
  seal(bytes, load_be64(bytes.data() + vhd::footer_at::kDataOffset), vhd::kHeaderBytes, vhd::header_at::kChecksum);
  seal(bytes, bytes.size() - vhd::kFooterBytes, vhd::kFooterBytes, vhd::footer_at::kChecksum);
  return bytes;
}

Result<std::unique_ptr<Block>> open_for(File& file, OpenFor what) {
  return vhd::open_vhd(file, {.writable = what != OpenFor::kReading});
}

void move_to_another(Block& image) {
  const std::string id = "00112233-4455-6677-8899-aabbccddeeff";
  const BackingReference another{.path = "b", .format = "vhd", .content_id = id};
  if (!image.set_backing(another).ok()) return;
  require(image.backing()->path == "b", "an image that was moved names its new parent");
}

bool look_at_file(const std::vector<std::byte>& bytes) {
  MemoryFile file(bytes);
  (void)vhd::probe_vhd(file).ok();
  if (auto block = vhd::open_vhd(file, {.info_only = true}); block.ok()) {
    require((*block)->info().specific.size() >= 2, "info knows the subformat and the id");
  }
  return check_anything(bytes, open_for, somewhere(bytes), move_to_another);
}

bool look(Bytes input) {
  if (input.size() > kMaxInput) return false;
  const std::vector<std::byte> bytes(input.begin(), input.end());
  const bool deepest = look_at_file(bytes);
  const std::vector<std::byte> right = sealed(bytes);
  return (right != bytes && look_at_file(right)) || deepest;
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

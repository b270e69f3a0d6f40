// vmdk_open_fuzz.cc: any bytes are refused, or read, checked, written and repaired without a crash, a hang or a lie.
// Input: a file.
#include <vector>

#include "fuzz/block_checks.h"
#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/vmdk.h"

namespace sluicebox::image::fuzz {

namespace {

Result<std::unique_ptr<Block>> open_for(File& file, OpenFor what) {
  return vmdk::open_vmdk(file, {.writable = what == OpenFor::kWriting || what == OpenFor::kRepair,
                                .for_repair = what == OpenFor::kRepair,
                                .salvage = what == OpenFor::kSalvage});
}

void move_to_another(Block& image) {
  (void)image.set_backing(BackingReference{.path = "b", .format = "vmdk", .content_id = "00000007"}).ok();
}

bool look(Bytes input) {
  if (input.size() > kMaxInput) return false;
  const std::vector<std::byte> bytes(input.begin(), input.end());
  if (const auto parsed = vmdk::parse_header(bytes); parsed.ok()) {
    const auto again = vmdk::parse_header(vmdk::serialize_header(parsed.value()));
    require(again.ok() && again.value() == parsed.value(), "a header that was parsed is written the same");
  }
  MemoryFile file(bytes);
  if (auto block = open_for(file, OpenFor::kReading); block.ok()) {
    require((*block)->info().specific.size() == 4, "info tells what there is to tell");
  }
  salvage(bytes, open_for);
  return check_anything(bytes, open_for, somewhere(input), move_to_another);
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

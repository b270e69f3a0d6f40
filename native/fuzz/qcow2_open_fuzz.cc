// qcow2_open_fuzz.cc: any bytes are refused, or read, checked, written and repaired without a crash, a hang or a lie.
// Input: a file.
#include <vector>

#include "fuzz/block_checks.h"
#include "image/formats/qcow2/qcow2.h"

namespace sluicebox::image::fuzz {

namespace {

Result<std::unique_ptr<Block>> open_for(File& file, OpenFor what) {
  return qcow2::open_qcow2(file, {.writable = what == OpenFor::kWriting || what == OpenFor::kRepair,
                                  .for_repair = what == OpenFor::kRepair,
                                  .salvage = what == OpenFor::kSalvage});
}

void move_to_another(Block& image) { (void)image.set_backing(BackingReference{"b", "raw"}).ok(); }

bool look(Bytes input) {
  if (input.size() > kMaxInput) return false;
  const std::vector<std::byte> bytes(input.begin(), input.end());
  MemoryFile file(bytes);
  if (auto block = qcow2::open_qcow2(file, {.info_only = true}); block.ok()) {
    require((*block)->info().cluster_bytes.has_value(), "info knows the cluster size");
  }
  salvage(bytes, open_for);
  return check_anything(bytes, open_for, somewhere(input), move_to_another);
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

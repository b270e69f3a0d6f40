// vhdx_plan_fuzz.cc: any options give a refusal, or a plan whose bookkeeping is right and whose bytes are an image.
// Input: as PlanInput has it; the log and the sectors take bytes 1 to 3, which are other formats'.
#include "fuzz/plan_checks.h"
#include "image/formats/vhdx/plan.h"
#include "image/formats/vhdx/vhdx.h"

namespace sluicebox::image::fuzz {

namespace {

vhdx::PlanOptions options_from(const PlanInput& input) {
  vhdx::PlanOptions options;
  options.fixed = input.byte(5) % 2 == 1;
  options.virtual_size = input.virtual_size();
  options.block_size = input.unit();
  options.log_size = std::uint64_t{input.byte(1)} << (input.byte(2) % 32);
  options.sector_size = input.byte(3) % 4 == 0 ? 512 : 512u << (input.byte(3) % 32 % 8);
  options.file_write = options.data_write = options.page83 = input.id();
  options.parent_path = input.backing_path();
  store_le32(options.parent_link.data(), input.parent());
  return options;
}

bool look(Bytes bytes) {
  const auto input = PlanInput::read(bytes);
  if (!input) return false;
  const vhdx::PlanOptions options = options_from(*input);
  return check_plain_planner(options, options.parent_path, DiskFormat::kVhdx, vhdx::plan_scratch_size, vhdx::plan_vhdx,
                             [](File& file) { return vhdx::open_vhdx(file, {}); });
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

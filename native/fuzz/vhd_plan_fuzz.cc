// vhd_plan_fuzz.cc: any options give a refusal, or a plan whose bookkeeping is right and whose bytes are an image.
// Input: as PlanInput has it.
#include "fuzz/plan_checks.h"
#include "image/formats/vhd/plan.h"
#include "image/formats/vhd/vhd.h"

namespace sluicebox::image::fuzz {

namespace {

vhd::PlanOptions options_from(const PlanInput& input) {
  vhd::PlanOptions options;
  options.fixed = input.byte(5) % 2 == 1;
  options.virtual_size = input.virtual_size();
  options.block_size = input.unit();
  options.id = input.id();
  options.timestamp = input.parent();
  options.parent_path = input.backing_path();
  store_le32(options.parent_id.data(), input.parent());
  return options;
}

bool look(Bytes bytes) {
  const auto input = PlanInput::read(bytes);
  if (!input) return false;
  const vhd::PlanOptions options = options_from(*input);
  return check_plain_planner(options, options.parent_path, DiskFormat::kVhd, vhd::plan_scratch_size, vhd::plan_vhd,
                             [](File& file) { return vhd::open_vhd(file, {}); });
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

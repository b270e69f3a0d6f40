// qcow2_plan_fuzz.cc: any options give a refusal, or a plan whose bookkeeping is right and whose bytes are an image.
// Input: as PlanInput has it.
#include "fuzz/plan_checks.h"
#include "image/formats/qcow2/plan.h"
#include "image/formats/qcow2/qcow2.h"

namespace sluicebox::image::fuzz {

namespace {

qcow2::PlanOptions options_from(const PlanInput& input) {
  constexpr unsigned kBits[] = {1, 2, 4, 8, 16, 32, 64, 0xff};
  constexpr const char* kFormats[] = {"raw", "qcow2", "vmdk", "vpc", "vhdx"};
  qcow2::PlanOptions options;
  options.refcount_bits = kBits[input.byte(1) % 8];
  options.extended_l2 = (input.byte(2) & 1) != 0;
  options.lazy_refcounts = (input.byte(2) & 2) != 0;
  options.version = (input.byte(2) & 4) != 0 ? 3 : 2;
  options.virtual_size = input.virtual_size();
  options.cluster_size = input.unit();
  options.backing_path = input.backing_path();
  const bool says_format = (input.byte(6) & 3) == 3;
  if (says_format) options.backing_format = kFormats[(input.byte(6) >> 4) % 5];
  return options;
}

void check_image(const qcow2::PlanOptions& options, MemoryFile file) {
  auto block = qcow2::open_qcow2(file, {});
  require(block.ok(), "I5: the plan re-parses");
  require((*block)->size() == options.virtual_size, "I5: with the size asked for");
  require((*block)->info().cluster_bytes == options.cluster_size, "I5: with clusters of the size asked for");
  require((*block)->allocation_unit() == options.cluster_size / (options.extended_l2 ? 32 : 1),
          "I5: with subclusters if they were asked for");
  const auto backing = (*block)->backing();
  require(backing.has_value() == !options.backing_path.empty(), "I5: with a backing if one was asked for");
  if (backing) {
    require(backing->path == options.backing_path && backing->format.value_or("") == options.backing_format,
            "I5: with the backing asked for");
  }
  require_clean(**block);
}

bool look(Bytes bytes) {
  const auto input = PlanInput::read(bytes);
  if (!input) return false;
  const qcow2::PlanOptions options = options_from(*input);
  const auto count = [](const ImagePlan& plan) { return plan.write_count; };
  return check_planner(options, qcow2::plan_scratch_size, qcow2::plan_qcow2, count,
                       [&](const ImagePlan& plan, Bytes scratch) {
                         check_bookkeeping(plan, scratch);
                         if (plan.minimum_file_size > kMaxReparsed) return false;
                         check_image(options, applied(plan));
                         return true;
                       });
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

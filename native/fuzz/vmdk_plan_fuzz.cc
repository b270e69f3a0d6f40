// vmdk_plan_fuzz.cc: any options give a refusal, or a plan whose bookkeeping is right and whose bytes are an image.
// Input: as PlanInput has it.
#include <array>
#include <map>
#include <string>

#include "fuzz/plan_checks.h"
#include "image/formats/vmdk/plan.h"
#include "image/formats/vmdk/vmdk.h"

namespace sluicebox::image::fuzz {

namespace {

vmdk::PlanOptions options_from(const PlanInput& input) {
  vmdk::PlanOptions options;
  options.subformat = vmdk::kSubformats[input.byte(4) % 5];
  options.adapter = vmdk::kAdapters[input.byte(1) % 3];
  options.virtual_size = input.virtual_size();
  options.grain_size = input.unit();
  options.cid = 0x12345678;
  options.parent_cid = input.parent() == 0 ? vmdk::kNoParent : input.parent();
  options.parent_hint = input.backing_path();
  return options;
}

MemoryFile planned_file(const vmdk::FilePlan& plan) { return applied(plan, plan.data_bytes); }

// Of all files together.
std::uint64_t bytes_of_files(const vmdk::Plan& plan) {
  std::uint64_t bytes = plan.image.minimum_file_size;
  for (std::uint64_t i = 0; i < plan.extents; ++i) {
    const vmdk::FilePlan& file = plan.extent_plan(i);
    const auto sum = checked_add(bytes, std::max(file.minimum_file_size, file.data_bytes));
    require(sum.has_value(), "I3: the sizes of all files do not overflow");
    bytes = *sum;
  }
  return bytes;
}

void check_image(const vmdk::PlanOptions& options, const vmdk::Plan& plan) {
  MemoryFile image = planned_file(plan.image);
  std::map<std::string, MemoryFile> files;
  for (std::uint64_t i = 0; i < plan.extents; ++i) {
    files.emplace(vmdk::extent_file_name(options, i), planned_file(plan.extent_plan(i)));
  }
  auto block = vmdk::open_vmdk(image, {.open_extent = [&](const std::string& name) -> Result<File*> {
                                 const auto found = files.find(name);
                                 require(found != files.end(), "I5: the descriptor names the planned files");
                                 return &found->second;
                               }});
  require(block.ok(), "I5: the plan re-parses");
  require((*block)->size() == options.virtual_size, "I5: with the size asked for");
  const auto backing = (*block)->backing();
  require(backing.has_value() == !options.parent_hint.empty(), "I5: with a backing if one was asked for");
  if (backing) {
    require(backing->path == options.parent_hint && backing->content_id == vmdk::content_id_text(options.parent_cid),
            "I5: with the backing asked for");
  }
  require_clean(**block);
}

bool look(Bytes bytes) {
  const auto input = PlanInput::read(bytes);
  if (!input) return false;
  const vmdk::PlanOptions options = options_from(*input);
  const auto files = [](const vmdk::Plan& plan) { return std::array{&plan.image, &plan.extent, &plan.last_extent}; };
  const auto count = [&](const vmdk::Plan& plan) {
    std::size_t writes = 0;
    for (const vmdk::FilePlan* file : files(plan)) writes += file->write_count;
    return writes;
  };
  return check_planner(options, vmdk::plan_scratch_size, vmdk::plan_vmdk, count,
                       [&](const vmdk::Plan& plan, Bytes scratch) {
                         for (const vmdk::FilePlan* file : files(plan)) check_bookkeeping(*file, scratch);
                         if (bytes_of_files(plan) > kMaxReparsed) return false;
                         check_image(options, plan);
                         return true;
                       });
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

// plan_checks.h: what holds of every plan of a new image, and the input of the planners' fuzz targets.
// Knows: plans by their shape, Block. Does not know: formats.
// Threads: one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/checked.h"
#include "fuzz/target.h"
#include "image/block.h"
#include "image/guid.h"
#include "image/image_plan.h"
#include "test/image/memory_file.h"

namespace sluicebox::image::fuzz {

using sluicebox::fuzz::require;

// 24 bytes of options, of which each format has its own among the first eight, then the path of a backing.
class PlanInput {
 public:
  static std::optional<PlanInput> read(Bytes input) {
    if (input.size() < kOptions) return std::nullopt;
    return PlanInput(input);
  }

  unsigned byte(std::size_t at) const { return std::to_integer<unsigned>(input_[at]); }
  std::uint64_t virtual_size() const { return load_le64(input_.data() + 8); }
  std::uint32_t unit() const { return load_le32(input_.data() + 16); }  // a cluster, grain or block
  std::uint32_t parent() const { return load_le32(input_.data() + 20); }
  Guid id() const { return load_guid(input_.data() + 8); }
  // Empty: none. Among them are some that are one byte too long, or two.
  std::string backing_path() const {
    if ((byte(6) & 1) == 0) return {};
    const unsigned code = byte(7) % 130;
    std::string path(code < 128 ? code : code == 128 ? 1024 : 1025, 'p');
    for (std::size_t i = 0; i < path.size() && kOptions + i < input_.size(); ++i) {
      path[i] = static_cast<char>(byte(kOptions + i));
    }
    return path;
  }

 private:
  static constexpr std::size_t kOptions = 24;

  explicit PlanInput(Bytes input) : input_(input) {}

  Bytes input_;
};

inline constexpr std::uint64_t kMaxReparsed = 16u << 20;  // before anything of that size is allocated
inline constexpr std::size_t kMaxWrites = 96;

// Of a plan of one file.
template <typename Plan>
void check_bookkeeping(const Plan& plan, Bytes scratch) {
  struct Write {
    std::uint64_t offset;
    Bytes bytes;
  };
  std::vector<Write> sorted;
  for (const auto& write : plan.all()) sorted.push_back({.offset = write.offset, .bytes = write.bytes});
  std::ranges::sort(sorted, {}, &Write::offset);
  std::uint64_t sum = 0;
  std::uint64_t end = 0;
  for (const Write& write : sorted) {
    require(write.bytes.data() >= scratch.data() &&
                write.bytes.data() + write.bytes.size() <= scratch.data() + scratch.size(),
            "I8: writes lie in the scratch buffer");
    require(write.offset >= end, "I2: no two writes overlap");
    const auto write_end = checked_add(write.offset, write.bytes.size());
    require(write_end.has_value(), "I3: no end overflows");
    end = *write_end;
    sum += write.bytes.size();
  }
  require(sum == plan.total_metadata_bytes, "I1: the total is the sum");
  require(end == plan.minimum_file_size, "I2: the largest end is the minimum file size");
  require(checked_add(sum, end).has_value(), "I3: total and size do not overflow");
}

// The file as planned, with zeros to at least that length.
template <typename Plan>
MemoryFile applied(const Plan& plan, std::uint64_t least = 0) {
  std::vector<std::byte> bytes(std::max(plan.minimum_file_size, least));
  for (const auto& write : plan.all()) {
    std::copy(write.bytes.begin(), write.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }
  return MemoryFile(std::move(bytes));
}

inline void require_clean(Block& block) {
  NoProgress progress;
  const CancelToken cancel;
  auto report = block.check(Repair::kNone, progress, cancel);
  require(report.ok() && report->corruptions == 0 && report->leaks == 0, "I6: the image is clean");
}

// As formats tell it that write ".\" in front of each relative path.
inline std::string without_dot(std::string path) {
  while (path.starts_with("./")) path.erase(0, path.find_first_not_of('/', 1));
  return path;
}

// All that holds of a planner's answer to `options`. `count`: of the plan's writes. `look`: at the plan and its scratch
// buffer, further; returns whether its deepest assertion ran, and so does this.
template <typename Options, typename Scratch, typename Make, typename Count, typename Look>
bool check_planner(const Options& options, Scratch scratch_size, Make make_plan, Count count, Look look) {
  const auto need = scratch_size(options);
  if (!need.ok()) return false;
  require(need.value() <= kImagePlanScratchBytes, "I8: 32 MiB of scratch suffice");
  std::vector<std::byte> scratch(need.value(), std::byte{0xaa});
  const auto plan = make_plan(options, MutableBytes(scratch));
  require(plan.ok(), "I8: the scratch asked for suffices");
  std::vector<std::byte> again(need.value(), std::byte{0x55});
  const auto twin = make_plan(options, MutableBytes(again));
  require(twin.ok() && scratch == again && count(twin.value()) == count(plan.value()),
          "I7: equal options give equal bytes");
  require(count(plan.value()) <= kMaxWrites, "I4: at most 96 writes");
  if (need.value() != 0) {
    std::vector<std::byte> small(need.value() - 1);
    const auto refused = make_plan(options, MutableBytes(small));
    require(!refused.ok() && refused.error().code == ErrorCode::kInvalidArgument, "I8: one byte too little is refused");
  }
  return look(plan.value(), Bytes(scratch));
}

// The same for a format of one file. `parent`: the path of its backing, empty without one.
template <typename Options, typename Scratch, typename Make, typename Open>
bool check_plain_planner(const Options& options, const std::string& parent, DiskFormat format, Scratch scratch_size,
                         Make make_plan, Open open) {
  const auto count = [](const ImagePlan& plan) { return plan.write_count; };
  return check_planner(options, scratch_size, make_plan, count, [&](const ImagePlan& plan, Bytes scratch) {
    check_bookkeeping(plan, scratch);
    if (plan.minimum_file_size > kMaxReparsed) return false;
    MemoryFile file = applied(plan);
    auto block = open(file);
    require(block.ok(), "I5: the plan re-parses");
    require((*block)->format() == format && (*block)->size() == options.virtual_size, "I5: with the size asked for");
    const auto backing = (*block)->backing();
    require(backing.has_value() == !parent.empty(), "I5: with a backing if one was asked for");
    if (backing) require(backing->path == without_dot(parent), "I5: with the backing asked for");
    require_clean(**block);
    return true;
  });
}

}  // namespace sluicebox::image::fuzz

// vmdk_descriptor_fuzz.cc: any text is refused, or is a descriptor whose parts and edits say the same as it does; and a
// disk of the files that it names reads as its parts do.
#include <cstring>
#include <string>
#include <vector>

#include "fuzz/plan_checks.h"
#include "image/formats/vmdk/descriptor.h"
#include "image/formats/vmdk/plan.h"
#include "image/formats/vmdk/vmdk.h"

namespace sluicebox::image::fuzz {

namespace {

vmdk::Descriptor must_parse(const std::string& text, const char* what) {
  auto parsed = vmdk::parse_descriptor(text);
  require(parsed.ok(), what);
  return std::move(parsed).value();
}

void check_edits(const vmdk::Descriptor& descriptor) {
  const vmdk::NewCid changed = vmdk::with_cid(descriptor, 0xfedcba98);
  require(changed.text.size() == descriptor.text.size(), "another CID moves nothing");
  require(must_parse(changed.text, "a text with another CID").cid == changed.cid, "and is the one that it says");
  const auto parented = must_parse(vmdk::with_parent(descriptor, "parent", 7), "a text with another parent");
  require(parented.parent_hint == "parent" && parented.parent_cid == 7, "the parent is the one asked for");
  require(parented.extents == descriptor.extents && parented.cid == descriptor.cid, "and nothing else is another");
  const auto detached = must_parse(vmdk::with_parent(descriptor, std::nullopt, vmdk::kNoParent), "a text without one");
  require(!detached.parent_hint, "no parent is left");
}

MemoryFile sparse_part() {
  vmdk::PlanOptions options;
  options.virtual_size = 1 << 20;
  options.subformat = vmdk::Subformat::kTwoGbMaxExtentSparse;
  std::vector<std::byte> scratch(vmdk::plan_scratch_size(options).value());
  return applied(vmdk::plan_vmdk(options, scratch).value().last_extent);
}

// Names that begin with 's' lead to a sparse part of 1 MiB, with 'f' to 64 KiB of bytes, others nowhere.
bool check_disk(const std::vector<std::byte>& text, const vmdk::Descriptor& descriptor) {
  static const std::vector<std::byte> kSparse = sparse_part().bytes();
  MemoryFile file(text);
  MemoryFile sparse(kSparse);
  MemoryFile flat(std::vector<std::byte>(65536, std::byte{0x77}));
  auto block = vmdk::open_vmdk(file, {.writable = true, .open_extent = [&](const std::string& name) -> Result<File*> {
                                        if (name.starts_with('s')) return &sparse;
                                        if (name.starts_with('f')) return &flat;
                                        return Error(ErrorCode::kImageNotFound, "no such part");
                                      }});
  if (!block.ok()) return false;
  require((*block)->size() == descriptor.sectors * 512, "the disk is as large as its parts");
  std::uint64_t at = 0;
  for (const vmdk::ExtentLine& line : descriptor.extents) {
    std::byte first{0xee};
    require((*block)->read(at, {&first, 1}).ok(), "each part reads");
    // A flat part is any bytes: those of the sparse one begin no sector so.
    const bool is_flat = line.kind == vmdk::ExtentKind::kFlat && line.name.starts_with('f');
    require((first == std::byte{0x77}) == is_flat, "and is the one of its line");
    at += line.sectors * 512;
  }
  const std::uint64_t unit = (*block)->allocation_unit();
  const std::vector<std::byte> data(std::min(unit, (*block)->size()), std::byte{0x5a});
  if (!(*block)->write(0, data).ok() || !(*block)->flush().ok()) return false;
  std::vector<std::byte> back(data.size());
  require((*block)->read(0, back).ok() && back == data, "what was written is read back");
  return true;
}

bool look(Bytes input) {
  std::string text(input.size(), '\0');
  if (!text.empty()) std::memcpy(text.data(), input.data(), text.size());
  const auto parsed = vmdk::parse_descriptor(text);
  if (!parsed.ok()) return false;
  check_edits(parsed.value());
  return check_disk({input.begin(), input.end()}, parsed.value());
}

}  // namespace

}  // namespace sluicebox::image::fuzz

bool sluicebox::fuzz::try_input(Bytes input) { return image::fuzz::look(input); }

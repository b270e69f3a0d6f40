// descriptor.h: the text that says what a VMDK disk consists of: parsed strictly, built anew, and edited in place.
// Knows: VMware's "Virtual Disk Format 5.0", section "The Descriptor File". Does not know: files, what lies in extents.
// Threads: values, pure functions.
//
// Defined results for what readers disagree about: a key that counts (version, CID, parentCID, createType,
// parentFileNameHint) and comes twice, or is missing, or is no number, is kImageCorrupt; so is a parent's name without
// its CID and the reverse. Access other than RW, and kinds of extents other than SPARSE, FLAT, VMFS and ZERO, are
// kUnsupported: a reader that skips such a line shows the rest of the disk at the wrong place. Other keys are left as
// they are. What follows the first NUL is not read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/formats/vmdk/layout.h"

namespace sluicebox::image::vmdk {

enum class ExtentKind : std::uint8_t { kSparse, kFlat, kZero };

struct ExtentLine {
  std::uint64_t sectors = 0;
  ExtentKind kind = ExtentKind::kSparse;
  std::string name;          // empty for kZero
  std::uint64_t offset = 0;  // in the file, in sectors; kFlat only
  bool operator==(const ExtentLine&) const = default;
};

struct Descriptor {
  std::uint32_t cid = 0;
  std::uint32_t parent_cid = kNoParent;
  std::string create_type;
  std::optional<std::string> parent_hint;  // absent exactly when parent_cid is kNoParent
  std::vector<ExtentLine> extents;
  std::uint64_t sectors = 0;    // of all extents
  bool tracks_changes = false;  // changeTrackPath: a file beside that a write would make wrong
  std::string text;             // without what follows the first NUL
};

Result<Descriptor> parse_descriptor(std::string_view text);

// What a new disk's descriptor says. The order and the spelling are those of qemu-img.
struct DescriptorParts {
  std::uint32_t cid = 0;
  std::uint32_t parent_cid = kNoParent;
  std::string create_type;
  std::string parent_hint;  // empty: none
  std::vector<ExtentLine> extents;
  std::string adapter;  // "ide", "lsilogic", "buslogic"
};
std::string build_descriptor(const DescriptorParts& parts);

// A name that can stand between the quotes of a descriptor: no quote, no control character.
bool quotable(std::string_view name);

// The text with another CID, written with as many digits as before, so that nothing moves: `cid` loses its highest
// bits where they are fewer than eight, and the one kept is returned.
struct NewCid {
  std::string text;
  std::uint32_t cid = 0;
};
NewCid with_cid(const Descriptor& descriptor, std::uint32_t cid);
// The text with another parent, or none.
std::string with_parent(const Descriptor& descriptor, const std::optional<std::string>& hint, std::uint32_t parent_cid);

}  // namespace sluicebox::image::vmdk

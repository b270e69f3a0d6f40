// record.h: what is known of a box, and its one form on disk.
// Knows: JSON. Does not know: directories, locks, engines.
// Threads: values only.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sluicebox::box {

struct LimitSpec {
  std::uint64_t value = 0;
  bool asked = false;  // named by the caller: a host that cannot enforce it must refuse
};

enum class DiskMode : std::uint8_t { kOverlay, kDirect, kReadonly };
// A disk as the caller named it.
struct DiskSpec {
  std::string path;                   // absolute
  std::optional<std::string> format;  // default: what its header says
  DiskMode mode = DiskMode::kOverlay;
};

// What a file was when an overlay was put above it.
struct FileFacts {
  std::string path;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  // A layer in the box's own directory, which was the overlay once: QEMU may have written its last to it since.
  bool own = false;
};
// Whether `now` is what was noted.
bool is_same(const FileFacts& now, const FileFacts& noted);

// A disk as the box has it.
struct DiskRecord {
  std::string format;            // of the file named
  std::string overlay;           // the box's own file, a name in its directory; empty: none
  std::vector<FileFacts> bases;  // under the overlay, nearest first
  // While it is moved to others: these. A crash leaves the overlay above either.
  std::optional<std::vector<FileFacts>> next_bases;
};

// What a box is made from; it does not change.
struct BoxSpec {
  std::optional<std::string> name;
  bool keep = false;                     // outlives being stopped
  bool machine = false;                  // a virtual machine; else namespaces
  std::optional<std::string> directory;  // root file system; default: the host's
  bool host = false;                     // a machine's that is an image of the host's programs
  std::vector<DiskSpec> disks;           // a machine's; the first holds its root file system, made from a directory too
  LimitSpec memory_bytes;
  LimitSpec vcpus;
  LimitSpec processes;
  std::uint64_t storage_bytes = 0;
  bool storage_asked = false;
  std::string config;  // the SDK's own, kept verbatim
};

struct BoxRecord {
  std::string id;
  std::int64_t created_at_ms = 0;  // of the epoch
  std::uint32_t first_uid = 0;     // under root: where the box's id range began last time
  BoxSpec spec;
  std::vector<DiskRecord> disks;  // one for each of the spec's, once they are made
};

// 96 random bits in lower-case hex. kIo when the kernel gives none.
Result<std::string> new_box_id();
bool is_box_id(std::string_view text);

nlohmann::json facts_to_json(const FileFacts& facts);
FileFacts facts_from_json(const nlohmann::json& value);
std::string to_json(const BoxRecord& record);
// kHomeIncompatible for a record of a later version, kIo for text that is no record.
Result<BoxRecord> from_json(std::string_view text);

}  // namespace sluicebox::box

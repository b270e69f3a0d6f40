// descriptor_file.h: a descriptor where it lies, in a sparse file or in one of its own, replaced so that a crash leaves
// the old one or the new one.
// Knows: one file, its sparse header if it has one. Does not know: extents.
// Threads: the one writer.
//
// What a disk writes whole is one sector. A change within one (another CID, always) is one write. A longer one, in a
// sparse file, goes by the header, which is one sector too: the new text is written into the second half of the
// descriptor's place, the header is pointed there, the text is written where it was, and the header is pointed back. In
// a descriptor file of its own nothing can be pointed elsewhere, and a change of more than one sector is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/file.h"
#include "image/formats/vmdk/header.h"

namespace sluicebox::image::vmdk {

class DescriptorFile {
 public:
  // `header`: of the sparse file that the descriptor lies in; absent: the file is the descriptor.
  DescriptorFile(File& file, std::optional<SparseHeader> header) : file_(file), header_(header) {}

  // With all that may follow the text.
  Result<std::string> read() const;
  // kUnsupported or kInvalidArgument where replace() would refuse; writes nothing.
  Status can_replace(const std::string& old_text, const std::string& new_text) const;
  // Durable on return, which is the text as it lies there now: in a file of its own, with the blank lines behind it.
  Result<std::string> replace(const std::string& old_text, const std::string& new_text);

 private:
  struct Change {
    std::string old_bytes, new_bytes;  // equally long, whole sectors but at the end of a file
    std::size_t begin = 0, end = 0;    // the sectors that differ, in bytes
    bool one_sector() const { return end - begin <= kSectorBytes; }
  };
  Result<Change> change(const std::string& old_text, const std::string& new_text) const;
  Status write_header(std::uint64_t descriptor_offset, std::uint64_t descriptor_sectors);

  File& file_;
  const std::optional<SparseHeader> header_;
};

}  // namespace sluicebox::image::vmdk

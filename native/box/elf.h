// elf.h: the parts of a 64-bit little-endian ELF file.
// Knows: ELF's tables. Does not know: files, what the parts mean.
// Threads: values only.
//
// The bytes are a file's that somebody else made: a part that is not wholly inside them makes the file malformed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::box {

struct ElfSegment {
  std::uint32_t type = 0;
  Bytes bytes;  // borrowed from the file
};
struct ElfSection {
  std::string name;
  Bytes bytes;  // borrowed; none for a section without bytes in the file
};

// kUnsupported: not such a file. kIo: malformed.
Result<std::vector<ElfSegment>> elf_segments(Bytes file);
Result<std::vector<ElfSection>> elf_sections(Bytes file);

}  // namespace sluicebox::box

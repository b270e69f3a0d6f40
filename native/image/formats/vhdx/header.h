// header.h: the part of a VHDX that changes in one step: two copies, of which the newer sound one counts.
// Knows: the format's layout. Does not know: files.
// Threads: values, pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

struct Header {
  std::uint64_t sequence = 0;
  Guid file_write = {};  // changes before the file does
  Guid data_write = {};  // changes before what a guest sees does; children know their parent by it
  Guid log = {};         // nil: there is nothing to replay
  std::uint16_t log_version = 0, version = 1;
  std::uint32_t log_length = 0;
  std::uint64_t log_offset = 0;
  bool operator==(const Header&) const = default;
};

inline constexpr std::size_t kHeaderUsedBytes = 80;

// Nothing for what is no header, or a damaged one.
std::optional<Header> parse_header(Bytes bytes);
// The first 80 bytes of 4096; the others are zeros, and the checksum is of all.
std::array<std::byte, kHeaderUsedBytes> serialize_header(const Header& header);

struct CurrentHeader {
  Header header;
  unsigned copy = 0;  // which of the two
};
// kImageCorrupt when neither is sound, or both claim to be the newer and differ; kUnsupported for another version.
Result<CurrentHeader> current_header(const std::optional<Header>& first, const std::optional<Header>& second);

}  // namespace sluicebox::image::vhdx

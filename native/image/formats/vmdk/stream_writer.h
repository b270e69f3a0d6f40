// stream_writer.h: writes a streamOptimized VMDK file from front to back, each grain once, in ascending order.
// Knows: one new file, deflate. Does not know: where the bytes come from, how the file is published.
// Threads: one writer; GrainPackers on as many threads as pack grains for it.
//
// The form is the standard one: the header leaves the directory to a footer, each table follows its grains behind a
// marker, and a footer and an end marker close the file. Until finish() the file is no image: killed before, it must
// never get its name.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/file.h"
#include "image/formats/vmdk/header.h"
#include "image/formats/vmdk/plan.h"

struct libdeflate_compressor;

namespace sluicebox::image::vmdk {

// Turns grains into what the file has of them: a marker, the zlib stream, zeros to the end of the sector.
class GrainPacker {
 public:
  explicit GrainPacker(std::uint64_t grain_bytes);
  ~GrainPacker();
  GrainPacker(const GrainPacker&) = delete;
  GrainPacker& operator=(const GrainPacker&) = delete;

  // `offset` is the grain's on the disk. `data` is all of it, or what the end of the disk leaves: zeros follow then.
  Result<std::vector<std::byte>> pack(std::uint64_t offset, Bytes data);

 private:
  const std::uint64_t grain_bytes_;
  std::vector<std::byte> padded_;
  libdeflate_compressor* compressor_;
};

class StreamWriter {
 public:
  // `file` is new and empty, and outlives the writer. The subformat of `options` is kStreamOptimized.
  static Result<std::unique_ptr<StreamWriter>> begin(File& file, const PlanOptions& options);

  std::uint64_t grain_bytes() const { return header_.geometry.grain_bytes(); }

  // The grain at `offset`, behind all that were given before: kInvalidArgument otherwise. What is never given reads as
  // zeros, or as the backing.
  Status write(std::uint64_t offset, Bytes data);
  // The same of a grain that was packed elsewhere.
  Status append(std::uint64_t offset, Bytes packed);
  // The rest of the file, durable on return. Nothing may be written afterwards.
  Status finish();

 private:
  StreamWriter(File& file, const SparseHeader& header);
  Status close_table();
  Status put(Bytes sectors);
  Error refuse(std::string text) const;

  File& file_;
  const SparseHeader header_;
  GrainPacker packer_;
  std::uint64_t next_sector_;
  std::uint64_t next_grain_ = 0;  // the lowest that may come
  bool finished_ = false;
  std::vector<std::uint32_t> directory_;
  std::uint64_t table_index_ = 0;  // of the table that is open
  bool table_used_ = false;
  std::array<std::uint32_t, kTableEntries> table_ = {};
};

}  // namespace sluicebox::image::vmdk

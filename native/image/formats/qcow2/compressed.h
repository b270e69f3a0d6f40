// compressed.h: the bytes of a compressed cluster, made and read.
// Knows: raw deflate, zstd (the qcow2 specification, "Compressed Clusters Descriptor" and the header's "compression
// type"). Does not know: where a stream lies in a file.
// Threads: an Inflater or a packer belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "image/block.h"

struct libdeflate_decompressor;
struct ZSTD_DCtx_s;

namespace sluicebox::image::qcow2 {

// As the header numbers them.
enum class Compression : std::uint8_t { kDeflate = 0, kZstd = 1 };

class Inflater {
 public:
  explicit Inflater(Compression compression);
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // True when `stream` begins with streams that are exactly `out.size()` bytes, whatever follows them. Never writes
  // past `out`, whatever the stream claims.
  bool inflate(Bytes stream, MutableBytes out);

 private:
  bool inflate_zstd(Bytes stream, MutableBytes out);

  libdeflate_decompressor* deflate_ = nullptr;
  ZSTD_DCtx_s* zstd_ = nullptr;
};

std::unique_ptr<UnitPacker> make_cluster_packer(Compression compression, std::size_t cluster);

}  // namespace sluicebox::image::qcow2

// compressed.h: the bytes of a compressed cluster.
// Knows: raw deflate. Does not know: where the stream came from.
// Threads: an Inflater belongs to one thread at a time.
#pragma once

#include "base/bytes.h"

struct libdeflate_decompressor;

namespace sluicebox::image::qcow2 {

class Inflater {
 public:
  Inflater();
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // True when `stream` begins with a deflate stream of exactly `out.size()` bytes, whatever follows it. Never writes
  // past `out`, whatever the stream claims.
  bool inflate(Bytes stream, MutableBytes out);

 private:
  libdeflate_decompressor* decompressor_;
};

}  // namespace sluicebox::image::qcow2

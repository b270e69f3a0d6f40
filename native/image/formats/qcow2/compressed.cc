#include "image/formats/qcow2/compressed.h"

#include <libdeflate.h>

namespace sluicebox::image::qcow2 {

Inflater::Inflater() : decompressor_(libdeflate_alloc_decompressor()) {}
Inflater::~Inflater() { libdeflate_free_decompressor(decompressor_); }

bool Inflater::inflate(Bytes stream, MutableBytes out) {
  if (decompressor_ == nullptr) return false;
  std::size_t written = 0;
  std::size_t consumed = 0;
  const auto outcome = libdeflate_deflate_decompress_ex(decompressor_, stream.data(), stream.size(), out.data(),
                                                        out.size(), &consumed, &written);
  return outcome == LIBDEFLATE_SUCCESS && written == out.size();
}

}  // namespace sluicebox::image::qcow2

#include "image/formats/qcow2/compressed.h"

#include <libdeflate.h>
#include <zstd.h>

#include <array>
#include <new>
#include <vector>

namespace sluicebox::image::qcow2 {

namespace {

// Measured on 64 KiB clusters of text: as small as QEMU's zlib with its window of 4 KiB makes them, or smaller, in a
// third of the time. Level 1 takes a sixth less time, and leaves some of them a tenth larger.
constexpr int kDeflateLevel = 5;
constexpr int kZstdLevel = 3;  // the library's default, which QEMU takes too
// A cluster has 2 MiB at most, so no writer needs more than 21; a frame that claims more memory is damage.
constexpr int kZstdWindowLog = 23;

// Both libraries give nothing when there is no memory; so does every other allocation, by throwing.
template <typename T>
T* allocated(T* pointer) {
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

// A few thousand bytes from all over the unit say whether some values are more frequent than others.
bool looks_random(Bytes unit) {
  constexpr std::size_t kSamples = 4096, kValues = 256;
  if (unit.size() < kSamples) return false;
  std::array<std::uint32_t, kValues> counts{};
  const std::size_t stride = unit.size() / kSamples;
  // The odd step keeps the samples from all being the same byte of a record.
  for (std::size_t i = 0; i < kSamples; ++i) {
    ++counts[std::to_integer<std::size_t>(unit[i * stride + (i * 7) % stride])];
  }
  std::uint64_t squares = 0;
  for (const std::uint64_t count : counts) squares += count * count;
  constexpr std::uint64_t kOfEvenOnes = kSamples + kSamples * kSamples / kValues;
  return squares < kOfEvenOnes + kOfEvenOnes / 8;
}

// What looks random may still repeat itself. zstd at its fastest finds out ten times as fast as deflate does.
class RandomnessTest {
 public:
  explicit RandomnessTest(std::size_t cluster) : out_(cluster - 1), context_(allocated(ZSTD_createCCtx())) {}
  ~RandomnessTest() { ZSTD_freeCCtx(context_); }
  RandomnessTest(const RandomnessTest&) = delete;
  RandomnessTest& operator=(const RandomnessTest&) = delete;

  bool is_random(Bytes unit) {
    constexpr int kFastest = 1;
    if (!looks_random(unit)) return false;
    return ZSTD_isError(ZSTD_compressCCtx(context_, out_.data(), out_.size(), unit.data(), unit.size(), kFastest)) != 0;
  }

 private:
  std::vector<std::byte> out_;
  ZSTD_CCtx* context_;
};

class DeflatePacker final : public UnitPacker {
 public:
  explicit DeflatePacker(std::size_t cluster)
      : out_(cluster - 1), randomness_(cluster), compressor_(allocated(libdeflate_alloc_compressor(kDeflateLevel))) {}
  ~DeflatePacker() override { libdeflate_free_compressor(compressor_); }
  DeflatePacker(const DeflatePacker&) = delete;
  DeflatePacker& operator=(const DeflatePacker&) = delete;

  std::optional<Bytes> pack(Bytes unit) override {
    if (randomness_.is_random(unit)) return std::nullopt;
    const std::size_t bytes =
        libdeflate_deflate_compress(compressor_, unit.data(), unit.size(), out_.data(), out_.size());
    if (bytes == 0) return std::nullopt;
    return Bytes(out_).first(bytes);
  }

 private:
  std::vector<std::byte> out_;
  RandomnessTest randomness_;
  libdeflate_compressor* compressor_;
};

class ZstdPacker final : public UnitPacker {
 public:
  explicit ZstdPacker(std::size_t cluster) : out_(cluster - 1), context_(allocated(ZSTD_createCCtx())) {}
  ~ZstdPacker() override { ZSTD_freeCCtx(context_); }
  ZstdPacker(const ZstdPacker&) = delete;
  ZstdPacker& operator=(const ZstdPacker&) = delete;

  std::optional<Bytes> pack(Bytes unit) override {
    const std::size_t bytes =
        ZSTD_compressCCtx(context_, out_.data(), out_.size(), unit.data(), unit.size(), kZstdLevel);
    if (ZSTD_isError(bytes) != 0) return std::nullopt;  // it did not get smaller
    return Bytes(out_).first(bytes);
  }

 private:
  std::vector<std::byte> out_;
  ZSTD_CCtx* context_;
};

}  // namespace

Inflater::Inflater(Compression compression) {
  if (compression == Compression::kDeflate) {
    deflate_ = allocated(libdeflate_alloc_decompressor());
  } else {
    zstd_ = allocated(ZSTD_createDCtx());
    (void)ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, kZstdWindowLog);
  }
}

Inflater::~Inflater() {
  libdeflate_free_decompressor(deflate_);
  ZSTD_freeDCtx(zstd_);
}

bool Inflater::inflate(Bytes stream, MutableBytes out) {
  if (zstd_ != nullptr) return inflate_zstd(stream, out);
  std::size_t written = 0;
  std::size_t consumed = 0;
  const auto outcome = libdeflate_deflate_decompress_ex(deflate_, stream.data(), stream.size(), out.data(), out.size(),
                                                        &consumed, &written);
  return outcome == LIBDEFLATE_SUCCESS && written == out.size();
}

// One frame or several; what the file has behind them is not looked at.
bool Inflater::inflate_zstd(Bytes stream, MutableBytes out) {
  (void)ZSTD_DCtx_reset(zstd_, ZSTD_reset_session_only);
  ZSTD_inBuffer from = {stream.data(), stream.size(), 0};
  ZSTD_outBuffer to = {out.data(), out.size(), 0};
  std::size_t left = 1;  // of the frame; 0 at its end
  while (to.pos < to.size || left != 0) {
    const std::size_t read = from.pos, written = to.pos;
    left = ZSTD_decompressStream(zstd_, &to, &from);
    if (ZSTD_isError(left) != 0) return false;
    if (from.pos == read && to.pos == written && left != 0) return false;
  }
  return true;
}

std::unique_ptr<UnitPacker> make_cluster_packer(Compression compression, std::size_t cluster) {
  if (compression == Compression::kZstd) return std::make_unique<ZstdPacker>(cluster);
  return std::make_unique<DeflatePacker>(cluster);
}

}  // namespace sluicebox::image::qcow2

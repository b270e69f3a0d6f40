// The parts of a VMDK disk that have no tables: a file's bytes as they are, and none at all.
#include <algorithm>
#include <vector>

#include "image/formats/vmdk/extent.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

constexpr std::uint64_t kFlatZeroChunk = 1u << 20;

class FlatExtent final : public Extent {
 public:
  FlatExtent(File& file, std::uint64_t start) : file_(file), start_(start) {}

  std::uint64_t unit() const override { return kSectorBytes; }
  const File* file() const override { return &file_; }

  Status read(std::uint64_t offset, MutableBytes out) override {
    return read_exact(file_, start_ + offset, out, "a flat extent");
  }

  Result<BlockStatus> status(std::uint64_t offset, std::uint64_t length) override {
    const FileExtent found = TRY(file_.extent_at(start_ + offset, length));
    BlockStatus status;
    status.mapping = found.data ? Mapping::kData : Mapping::kZero;
    status.length = std::min(found.length, length);
    if (found.data) status.host_offset = start_ + offset;
    return status;
  }

  Status write(std::uint64_t offset, Bytes data) override { return file_.write_at(start_ + offset, data); }

  Status write_zeros(std::uint64_t offset, std::uint64_t length) override {
    std::vector<std::byte> zeros;
    for (std::uint64_t done = 0; done < length;) {
      const FileExtent found = TRY(file_.extent_at(start_ + offset + done, length - done));
      if (!found.data) {  // a hole reads as zeros already
        done += std::min(found.length, length - done);
        continue;
      }
      const std::uint64_t part = std::min({found.length, kFlatZeroChunk, length - done});
      zeros.resize(std::max<std::size_t>(zeros.size(), part));
      TRY(file_.write_at(start_ + offset + done, Bytes(zeros).first(part)));
      done += part;
    }
    return {};
  }

  Status flush() override { return file_.sync(); }
  Status make_empty() override {
    return Error(ErrorCode::kUnsupported, printable(file_.path()) + " is flat: it has data everywhere")
        .on(file_.path());
  }

 private:
  File& file_;
  const std::uint64_t start_;
};

class ZeroExtent final : public Extent {
 public:
  std::uint64_t unit() const override { return kSectorBytes; }
  const File* file() const override { return nullptr; }

  Status read(std::uint64_t, MutableBytes out) override {
    std::memset(out.data(), 0, out.size());
    return {};
  }
  Result<BlockStatus> status(std::uint64_t, std::uint64_t length) override {
    BlockStatus status;
    status.mapping = Mapping::kZero;
    status.length = length;
    return status;
  }
  Status write(std::uint64_t, Bytes data) override {
    if (all_zero(data)) return {};
    return Error(ErrorCode::kUnsupported, "a part of the disk that its descriptor calls ZERO holds nothing");
  }
  Status write_zeros(std::uint64_t, std::uint64_t) override { return {}; }
  Status flush() override { return {}; }
  Status make_empty() override { return {}; }
};

}  // namespace

Result<std::unique_ptr<Extent>> open_flat(File& file, std::uint64_t offset, std::uint64_t sectors) {
  const std::uint64_t need = (offset + sectors) * kSectorBytes;  // the descriptor's parser bounds both
  const std::uint64_t has = TRY(file.size());
  if (has < need) {
    return Error(ErrorCode::kImageCorrupt, printable(file.path()) + " has " + std::to_string(has) +
                                               " bytes, the descriptor needs " + std::to_string(need))
        .on(file.path());
  }
  return std::unique_ptr<Extent>(std::make_unique<FlatExtent>(file, offset * kSectorBytes));
}

std::unique_ptr<Extent> make_zero_extent() { return std::make_unique<ZeroExtent>(); }

}  // namespace sluicebox::image::vmdk

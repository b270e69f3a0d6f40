#include <algorithm>
#include <vector>

#include "image/file.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kZerosAtOnce = 1u << 20;

}  // namespace

Status read_padded(const File& file, std::uint64_t offset, MutableBytes out) {
  const std::size_t had = TRY(file.read_at(offset, out));
  if (had < out.size()) std::memset(out.data() + had, 0, out.size() - had);
  return {};
}

Status read_exact(const File& file, std::uint64_t offset, MutableBytes out, const char* what) {
  const std::size_t had = TRY(file.read_at(offset, out));
  if (had == out.size()) return {};
  return Error(ErrorCode::kImageCorrupt, std::string(what) + " is cut short by the end of the file")
      .on(file.path())
      .at(offset);
}

Status write_zeros(File& file, std::uint64_t offset, std::uint64_t length) {
  std::vector<std::byte> zeros;
  for (std::uint64_t done = 0; done < length;) {
    const FileExtent extent = TRY(file.extent_at(offset + done, length - done));
    // A hole reads as zeros already.
    if (!extent.data || TRY(file.zero(offset + done, extent.length))) {
      done += extent.length;
      continue;
    }
    const std::uint64_t part = std::min(extent.length, kZerosAtOnce);
    zeros.resize(std::max<std::size_t>(zeros.size(), part));
    TRY(file.write_at(offset + done, Bytes(zeros).first(part)));
    done += part;
  }
  return {};
}

}  // namespace sluicebox::image

#include "image/file.h"

namespace sluicebox::image {

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

}  // namespace sluicebox::image

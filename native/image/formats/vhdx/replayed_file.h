// replayed_file.h: a file as it is once its log is replayed, while the file itself is not written yet.
// Knows: File, changes. Does not know: where they come from.
// Threads: as File.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "image/file.h"
#include "image/formats/vhdx/log.h"

namespace sluicebox::image::vhdx {

class ReplayedFile final : public File {
 public:
  explicit ReplayedFile(File& file) : file_(file) {}

  // Later changes hide earlier ones. Ranges are the caller's to check.
  void apply(LogChange change);
  // The file is to be at least so long.
  void extend(std::uint64_t bytes) { least_bytes_ = std::max(least_bytes_, bytes); }
  bool is_changed() const { return least_bytes_ != 0 || !changes_.empty(); }
  // Makes the changes in the file, durably; from here on it is the file that is read and written.
  Status write_back();

  const std::string& path() const override { return file_.path(); }
  Result<std::uint64_t> size() const override;
  Result<std::uint64_t> allocated_bytes() const override { return file_.allocated_bytes(); }
  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override;
  Status write_at(std::uint64_t offset, Bytes data) override;
  Status sync() override { return file_.sync(); }
  Status truncate(std::uint64_t size) override;
  Status allocate(std::uint64_t offset, std::uint64_t length) override;
  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override;

 private:
  struct Change {
    std::uint64_t end = 0;
    std::shared_ptr<const std::vector<std::byte>> bytes;  // null: zeros
    std::uint64_t skip = 0;                               // of `bytes`
  };
  void make_gap(std::uint64_t begin, std::uint64_t end);
  Status require_written_back() const;

  File& file_;
  std::map<std::uint64_t, Change> changes_;  // by begin; none meets another
  std::uint64_t least_bytes_ = 0;
};

}  // namespace sluicebox::image::vhdx

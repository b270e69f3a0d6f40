// unsynced_file.h: a file that nobody can see yet, while it is filled: nothing of it has to survive a crash.
// Knows: File. Does not know: who publishes it, and makes it durable before that.
// Threads: as file.h.
#pragma once

#include <string>

#include "image/file.h"

namespace sluicebox::image {

class UnsyncedFile final : public File {
 public:
  // Borrows.
  explicit UnsyncedFile(File& file) : file_(file) {}

  const std::string& path() const override { return file_.path(); }
  Result<std::uint64_t> size() const override { return file_.size(); }
  Result<std::uint64_t> allocated_bytes() const override { return file_.allocated_bytes(); }
  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override {
    return file_.read_at(offset, out);
  }
  Status write_at(std::uint64_t offset, Bytes data) override { return file_.write_at(offset, data); }
  Status sync() override { return {}; }
  Status truncate(std::uint64_t size) override { return file_.truncate(size); }
  Status allocate(std::uint64_t offset, std::uint64_t length) override { return file_.allocate(offset, length); }
  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override {
    return file_.extent_at(offset, length);
  }

 private:
  File& file_;
};

}  // namespace sluicebox::image

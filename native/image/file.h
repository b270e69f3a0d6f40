// file.h: what a format reads and writes: one open file, behind an interface so that tests can drop, tear and fail
// writes. Knows: bytes at offsets. Does not know: formats, chains, locks. Threads: one thread at a time; read_at()
// and extent_at() from several at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::image {

struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const FileIdentity&) const = default;
};

// A run of the file that is either data or a hole.
struct FileExtent {
  bool data = false;
  std::uint64_t length = 0;
};

class File {
 public:
  virtual ~File() = default;

  virtual const std::string& path() const = 0;  // as opened; for messages
  virtual Result<std::uint64_t> size() const = 0;
  // Of a block device: what it holds ends before it does.
  virtual bool has_fixed_size() const { return false; }
  virtual Result<std::uint64_t> allocated_bytes() const = 0;
  // Reads until `out` is full or the file ends; returns the bytes read.
  virtual Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const = 0;
  // Writes all of `data` or fails; extends the file.
  virtual Status write_at(std::uint64_t offset, Bytes data) = 0;
  // fdatasync: what was written before is durable when it returns. An error is sticky: nothing later succeeds.
  virtual Status sync() = 0;
  // One of fixed size stays as it is, and cannot be made longer.
  virtual Status truncate(std::uint64_t size) = 0;
  virtual Status allocate(std::uint64_t offset, std::uint64_t length) = 0;
  // Makes what there is of the range read as zeros, and keeps its space, without writing them; false: not to be had.
  virtual Result<bool> zero(std::uint64_t, std::uint64_t) { return false; }
  // What lies at `offset`, at most to `offset + length` (the end of the file counts as a hole). Conservative: data
  // where unknown.
  virtual Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const = 0;
};

// Reads exactly `out`; what lies past the end of the file reads as zeros.
Status read_padded(const File& file, std::uint64_t offset, MutableBytes out);
// Reads exactly `out`; a short file is kImageCorrupt, naming `what`.
Status read_exact(const File& file, std::uint64_t offset, MutableBytes out, const char* what);
// Zeros over what is data there: holes read as zeros already, and stay.
Status write_zeros(File& file, std::uint64_t offset, std::uint64_t length);

// The real thing. The descriptor is a regular file or block device.
class PosixFile final : public File {
 public:
  PosixFile(UniqueFd fd, std::string path);
  int fd() const { return fd_.get(); }
  Result<FileIdentity> identity() const;

  const std::string& path() const override { return path_; }
  Result<std::uint64_t> size() const override;
  bool has_fixed_size() const override;
  Result<std::uint64_t> allocated_bytes() const override;
  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override;
  Status write_at(std::uint64_t offset, Bytes data) override;
  Status sync() override;
  Status truncate(std::uint64_t size) override;
  Status allocate(std::uint64_t offset, std::uint64_t length) override;
  Result<bool> zero(std::uint64_t offset, std::uint64_t length) override;
  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override;

 private:
  void start_writeback(std::uint64_t begin, std::uint64_t end);

  UniqueFd fd_;
  std::string path_;
  // What was written since the disk was last asked to begin: how much, and between which offsets.
  std::uint64_t waiting_bytes_ = 0, waiting_begin_ = 0, waiting_end_ = 0;
  int sync_error_ = 0;
};

}  // namespace sluicebox::image

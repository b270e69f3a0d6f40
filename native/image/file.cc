#include "image/file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/checked.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

constexpr std::uint64_t kLargestOffset = std::numeric_limits<off_t>::max();

// Little is left to its sync(), which may never come; of much, most is done by then.
constexpr std::uint64_t kWritebackBytes = 32u << 20;

Error failed(int saved_errno, const char* verb, const std::string& path) {
  return os_error(saved_errno, std::string("cannot ") + verb + " " + printable(path), path);
}

Status within_off_t(std::uint64_t offset, std::uint64_t length, const char* verb, const std::string& path) {
  const auto end = checked_add(offset, length);
  if (!end || *end > kLargestOffset) return failed(EFBIG, verb, path).at(offset);
  return {};
}

}  // namespace

PosixFile::PosixFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

Result<FileIdentity> PosixFile::identity() const {
  struct stat status = {};
  if (::fstat(fd(), &status) != 0) return failed(errno, "examine", path_);
  return FileIdentity{.device = status.st_dev, .inode = status.st_ino};
}

Result<std::uint64_t> PosixFile::size() const {
  struct stat status = {};
  if (::fstat(fd(), &status) != 0) return failed(errno, "examine", path_);
  if (!S_ISBLK(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  std::uint64_t bytes = 0;
  if (::ioctl(fd(), BLKGETSIZE64, &bytes) != 0) return failed(errno, "ask the size of", path_);
  return bytes;
}

bool PosixFile::has_fixed_size() const {
  struct stat status = {};
  return ::fstat(fd(), &status) == 0 && S_ISBLK(status.st_mode);
}

Result<std::uint64_t> PosixFile::allocated_bytes() const {
  struct stat status = {};
  if (::fstat(fd(), &status) != 0) return failed(errno, "examine", path_);
  if (S_ISBLK(status.st_mode)) return size();
  return static_cast<std::uint64_t>(status.st_blocks) * 512;  // st_blocks is in 512-byte units on every file system
}

Result<std::size_t> PosixFile::read_at(std::uint64_t offset, MutableBytes out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t at = offset + done;
    if (at < offset || at > kLargestOffset) break;  // past the end of any file
    const std::size_t room = std::min<std::uint64_t>(out.size() - done, kLargestOffset - at);
    const ssize_t got = ::pread(fd(), out.data() + done, room, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(errno, "read", path_).at(at);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

Status PosixFile::write_at(std::uint64_t offset, Bytes data) {
  if (sync_error_ != 0) return failed(sync_error_, "write after a failed sync to", path_).at(offset);
  TRY(within_off_t(offset, data.size(), "write", path_));
  std::size_t done = 0;
  while (done < data.size()) {
    const std::uint64_t at = offset + done;
    const ssize_t put = ::pwrite(fd(), data.data() + done, data.size() - done, static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return failed(errno, "write", path_).at(at);
    if (put == 0) return failed(ENOSPC, "write", path_).at(at);  // the end of a block device
    done += static_cast<std::size_t>(put);
  }
  start_writeback(offset, offset + data.size());
  return {};
}

// Much that is written before the next sync() goes to the disk while more is prepared, so that the sync finds little
// left to do. It only begins: nothing is waited for, nothing is promised, and an error is left for sync() to tell.
void PosixFile::start_writeback(std::uint64_t begin, std::uint64_t end) {
  waiting_begin_ = waiting_bytes_ == 0 ? begin : std::min(waiting_begin_, begin);
  waiting_end_ = waiting_bytes_ == 0 ? end : std::max(waiting_end_, end);
  waiting_bytes_ += end - begin;
  if (waiting_bytes_ < kWritebackBytes) return;
  waiting_bytes_ = 0;
  (void)::sync_file_range(fd(), static_cast<off_t>(waiting_begin_), static_cast<off_t>(waiting_end_ - waiting_begin_),
                          SYNC_FILE_RANGE_WRITE);
}

Status PosixFile::sync() {
  waiting_bytes_ = 0;
  // After a failed fsync the kernel may have dropped the dirty pages, and a second call would say that all is well.
  if (sync_error_ == 0 && ::fdatasync(fd()) != 0) sync_error_ = errno;
  if (sync_error_ != 0) return failed(sync_error_, "sync", path_);
  return {};
}

Status PosixFile::truncate(std::uint64_t size) {
  if (sync_error_ != 0) return failed(sync_error_, "resize after a failed sync", path_);
  TRY(within_off_t(size, 0, "resize", path_));
  if (has_fixed_size()) return size <= TRY(this->size()) ? Status() : failed(ENOSPC, "resize", path_);
  int outcome = 0;
  do {
    outcome = ::ftruncate(fd(), static_cast<off_t>(size));
  } while (outcome != 0 && errno == EINTR);
  if (outcome != 0) return failed(errno, "resize", path_);
  return {};
}

Status PosixFile::allocate(std::uint64_t offset, std::uint64_t length) {
  if (sync_error_ != 0) return failed(sync_error_, "allocate after a failed sync in", path_);
  if (length == 0) return {};
  TRY(within_off_t(offset, length, "allocate space in", path_));
  int outcome = 0;
  do {
    outcome = ::fallocate(fd(), 0, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (outcome != 0 && errno == EINTR);
  if (outcome == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOSYS) {
    return Error(ErrorCode::kUnsupported, "the file system of " + printable(path_) + " cannot preallocate space")
        .on(path_)
        .advise("use preallocation 'full', which writes zeros, or 'off'");
  }
  return failed(errno, "allocate space in", path_).at(offset);
}

Result<bool> PosixFile::zero(std::uint64_t offset, std::uint64_t length) {
  if (sync_error_ != 0) return failed(sync_error_, "write after a failed sync to", path_).at(offset);
  TRY(within_off_t(offset, length, "write", path_));
  constexpr int kMode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  int outcome = 0;
  do {
    outcome = ::fallocate(fd(), kMode, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (outcome != 0 && errno == EINTR);
  if (outcome == 0) return true;
  if (errno == ENOSPC || errno == EIO) return failed(errno, "write", path_).at(offset);
  // Not by this file system or device, or not in a range like this.
  return false;
}

Result<FileExtent> PosixFile::extent_at(std::uint64_t offset, std::uint64_t length) const {
  const FileExtent hole{.data = false, .length = length};
  if (offset > kLargestOffset) return hole;
  // lseek moves a position that pread and pwrite do not use, so concurrent callers do not disturb each other.
  const off_t data = ::lseek(fd(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return hole;  // no data up to the end, or past it
  if (data < 0) {
    const std::uint64_t end = TRY(size());
    if (offset >= end) return hole;
    return FileExtent{.data = true, .length = std::min(length, end - offset)};
  }
  const auto first = static_cast<std::uint64_t>(data);
  if (first > offset) return FileExtent{.data = false, .length = std::min(length, first - offset)};
  const off_t next = ::lseek(fd(), static_cast<off_t>(offset), SEEK_HOLE);
  if (next < 0 || static_cast<std::uint64_t>(next) <= offset) {
    // The file was cut in between: one unit of progress, and the next call sees the new end.
    return FileExtent{.data = true, .length = std::min<std::uint64_t>(length, 512)};
  }
  return FileExtent{.data = true, .length = std::min(length, static_cast<std::uint64_t>(next) - offset)};
}

}  // namespace sluicebox::image

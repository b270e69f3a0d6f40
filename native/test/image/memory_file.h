// memory_file.h: a file in memory for tests: it fails when told to, and keeps a journal from which any crash can be
// played back. Knows: the File interface. Threads: one thread at a time; read_at() from several at once.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "image/file.h"
#include "test/image/thoroughness.h"

namespace sluicebox::image {

class MemoryFile final : public File {
 public:
  struct Event {
    enum class Kind : std::uint8_t { kWrite, kTruncate, kSync } kind;
    std::uint64_t offset = 0;  // kTruncate: the new size
    std::vector<std::byte> data;
  };

  explicit MemoryFile(std::vector<std::byte> bytes = {}) : bytes_(std::move(bytes)), start_(bytes_) {}

  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte>& bytes() { return bytes_; }
  const std::vector<Event>& journal() const { return journal_; }
  std::uint64_t writes() const { return writes_; }
  std::uint64_t syncs() const { return syncs_; }

  // Keep a journal from here on.
  void start_journal() {
    journaling_ = true;
    start_ = bytes_;
    journal_.clear();
  }
  // The nth write (or sync) from now on, 1 for the next, and all after it fail with `error`.
  void fail_write(std::uint64_t nth, int error = EIO) { fail_write_at_ = writes_ + nth, fail_error_ = error; }
  void fail_sync(std::uint64_t nth, int error = EIO) { fail_sync_at_ = syncs_ + nth, fail_error_ = error; }
  void heal() { fail_write_at_ = fail_sync_at_ = 0; }
  // Writes that would make the file longer than this fail with ENOSPC, after what fits has been written.
  void limit_size(std::uint64_t bytes) { size_limit_ = bytes; }

  // What a disk may hold after a crash behind the first `events` events of the journal: all that was synced, and of the
  // later writes any subset of their 512-byte sectors, chosen by `seed` (0: none, 1: all).
  std::vector<std::byte> after_crash(std::size_t events, std::uint64_t seed) const {
    std::vector<std::byte> image = start_;
    std::size_t durable = 0;
    for (std::size_t i = 0; i < events; ++i) {
      if (journal_[i].kind == Event::Kind::kSync) durable = i + 1;
    }
    std::mt19937_64 random(seed);
    for (std::size_t i = 0; i < events; ++i) {
      const Event& event = journal_[i];
      if (event.kind == Event::Kind::kSync) continue;
      if (event.kind == Event::Kind::kTruncate) {
        if (i < durable || seed == 1 || (seed != 0 && random() % 2 == 0)) image.resize(event.offset);
        continue;
      }
      std::size_t at = 0;
      while (at < event.data.size()) {
        const std::size_t sector_end = ((event.offset + at) / 512 + 1) * 512 - event.offset;
        const std::size_t end = std::min(event.data.size(), sector_end);
        if (i < durable || seed == 1 || (seed != 0 && random() % 2 == 0)) {
          if (image.size() < event.offset + end) image.resize(event.offset + end);
          std::copy(event.data.begin() + static_cast<std::ptrdiff_t>(at),
                    event.data.begin() + static_cast<std::ptrdiff_t>(end),
                    image.begin() + static_cast<std::ptrdiff_t>(event.offset + at));
        }
        at = end;
      }
    }
    return image;
  }

  const std::string& path() const override { return path_; }
  Result<std::uint64_t> size() const override { return static_cast<std::uint64_t>(bytes_.size()); }
  Result<std::uint64_t> allocated_bytes() const override { return static_cast<std::uint64_t>(bytes_.size()); }

  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override {
    if (offset >= bytes_.size()) return std::size_t{0};
    const std::size_t had = std::min<std::uint64_t>(out.size(), bytes_.size() - offset);
    if (had > 0) std::memcpy(out.data(), bytes_.data() + offset, had);
    return had;
  }

  Status write_at(std::uint64_t offset, Bytes data) override {
    ++writes_;
    if (fail_write_at_ != 0 && writes_ >= fail_write_at_) return os_error(fail_error_, "cannot write", path_);
    const bool full = offset + data.size() > size_limit_;
    if (full) data = data.first(offset < size_limit_ ? size_limit_ - offset : 0);
    if (!data.empty()) {
      if (bytes_.size() < offset + data.size()) bytes_.resize(offset + data.size());
      std::memcpy(bytes_.data() + offset, data.data(), data.size());
    }
    if (journaling_) journal_.push_back({Event::Kind::kWrite, offset, {data.begin(), data.end()}});
    if (full) return os_error(ENOSPC, "cannot write", path_);
    return {};
  }

  Status sync() override {
    ++syncs_;
    if (fail_sync_at_ != 0 && syncs_ >= fail_sync_at_) return os_error(fail_error_, "cannot sync", path_);
    if (journaling_) journal_.push_back({Event::Kind::kSync, 0, {}});
    return {};
  }

  Status truncate(std::uint64_t new_size) override {
    if (new_size > size_limit_) return os_error(ENOSPC, "cannot grow", path_);
    bytes_.resize(new_size);
    if (journaling_) journal_.push_back({Event::Kind::kTruncate, new_size, {}});
    return {};
  }

  Status allocate(std::uint64_t offset, std::uint64_t length) override {
    if (offset + length > bytes_.size()) return truncate(offset + length);
    return {};
  }

  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override {
    const std::uint64_t end = std::max<std::uint64_t>(offset, bytes_.size());
    if (offset < bytes_.size()) return FileExtent{true, std::min(length, end - offset)};
    return FileExtent{false, length};
  }

 private:
  std::string path_ = "memory";
  std::vector<std::byte> bytes_;
  std::vector<std::byte> start_;
  std::vector<Event> journal_;
  bool journaling_ = false;
  std::uint64_t writes_ = 0, syncs_ = 0;
  std::uint64_t fail_write_at_ = 0, fail_sync_at_ = 0;
  int fail_error_ = EIO;
  std::uint64_t size_limit_ = ~std::uint64_t{0};
};

// For after_crash() behind so many events: none of what was not synced, all of it, and a random part or many.
inline std::vector<std::uint64_t> crash_seeds(std::size_t events) {
  std::vector<std::uint64_t> seeds = {0, 1};
  for (std::uint64_t i = 0; i < (testing::is_thorough() ? 18 : 1); ++i) seeds.push_back(2 + events + i);
  return seeds;
}

}  // namespace sluicebox::image

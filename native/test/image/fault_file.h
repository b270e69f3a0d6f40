// fault_file.h: a file whose power can be cut at any write or sync, or whose disk can run full.
// Knows: File. Files of one plan are on one disk. What was not synced is held in memory; a cut lets none, all or a torn
// part of it reach the real file. Threads: one test.
#pragma once

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "image/file.h"
#include "test/image/thoroughness.h"

namespace sluicebox::image::testing {

// What survives of the writes since the last sync.
enum class Surviving { kNone, kAll, kTornPart };

// What to try where the n-th write or sync is cut: each in its turn, or all three.
inline std::vector<Surviving> survivals(std::uint64_t n) {
  constexpr Surviving kEach[] = {Surviving::kNone, Surviving::kAll, Surviving::kTornPart};
  if (is_thorough()) return {std::begin(kEach), std::end(kEach)};
  // Not in step with writes and syncs that alternate.
  return {kEach[(n + n / 3) % 3]};
}

struct FaultPlan {
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t cut_at = kNever;   // the n-th write or sync (from 0) does not happen, and none after it
  std::uint64_t full_at = kNever;  // from the n-th on, writes fail with ENOSPC
  std::uint64_t sync_fails_at = kNever;
  Surviving surviving = Surviving::kNone;
  unsigned seed = 1;

  std::uint64_t steps = 0;  // writes and syncs asked for so far
  bool reached = false;     // the fault happened
  bool cut = false;         // the power is off, for every file of this plan
};

class FaultFile final : public File {
 public:
  FaultFile(std::unique_ptr<File> durable, FaultPlan& plan) : durable_(std::move(durable)), plan_(plan) {
    current_.resize(durable_->size().value());
    durable_->read_at(0, current_).value();
  }
  // A process that ends leaves its writes to the kernel; one whose power was cut left them to chance.
  ~FaultFile() override {
    if (plan_.cut) lose_power(nullptr);
    if (!dead_) apply(pending_);
  }

  const std::string& path() const override { return durable_->path(); }
  Result<std::uint64_t> size() const override { return std::uint64_t{current_.size()}; }
  Result<std::uint64_t> allocated_bytes() const override { return durable_->allocated_bytes(); }

  Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) const override {
    if (offset >= current_.size()) return std::size_t{0};
    const std::size_t length = std::min<std::size_t>(out.size(), current_.size() - offset);
    std::copy_n(current_.begin() + static_cast<std::ptrdiff_t>(offset), length, out.begin());
    return length;
  }

  Status write_at(std::uint64_t offset, Bytes data) override {
    Write write{.offset = offset, .bytes = {data.begin(), data.end()}};
    TRY(step(&write));
    if (plan_.steps > plan_.full_at) {
      plan_.reached = true;
      return os_error(ENOSPC, "cannot write", path());
    }
    show(write);
    pending_.push_back(std::move(write));
    return {};
  }

  Status sync() override {
    TRY(step(nullptr));
    if (plan_.steps > plan_.sync_fails_at) {
      plan_.reached = true;
      return os_error(EIO, "cannot sync", path());
    }
    apply(pending_);
    pending_.clear();
    return durable_->sync();
  }

  Status truncate(std::uint64_t size) override {
    Write write{.offset = size, .bytes = {}, .truncates = true};
    TRY(step(&write));
    show(write);
    pending_.push_back(std::move(write));
    return {};
  }
  Status allocate(std::uint64_t offset, std::uint64_t length) override {
    return offset + length > current_.size() ? truncate(offset + length) : Status();
  }

  Result<FileExtent> extent_at(std::uint64_t offset, std::uint64_t length) const override {
    if (offset >= current_.size()) return FileExtent{.data = false, .length = length};
    return FileExtent{.data = true, .length = std::min<std::uint64_t>(length, current_.size() - offset)};
  }

 private:
  struct Write {
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
    bool truncates = false;
  };

  Status step(const Write* in_flight) {
    if (!plan_.cut && plan_.steps++ != plan_.cut_at) return {};
    if (!plan_.cut) {
      plan_.cut = plan_.reached = true;
      lose_power(in_flight);
    }
    return os_error(EIO, "the power was cut", path());
  }

  void lose_power(const Write* in_flight) {
    if (dead_) return;
    dead_ = true;
    if (in_flight != nullptr) pending_.push_back(*in_flight);
    if (plan_.surviving == Surviving::kAll) apply(pending_);
    if (plan_.surviving == Surviving::kTornPart) apply(torn(pending_));
  }

  // Whole sectors are written or not; which, and in what order, is the disk's affair.
  std::vector<Write> torn(const std::vector<Write>& writes) const {
    std::mt19937 random(plan_.seed);
    std::vector<Write> part;
    for (const Write& write : writes) {
      if (write.truncates) {
        if (random() % 2 == 0) part.push_back(write);
        continue;
      }
      for (std::size_t at = 0; at < write.bytes.size();) {
        const std::size_t length = std::min<std::size_t>(512 - (write.offset + at) % 512, write.bytes.size() - at);
        if (random() % 2 == 0) {
          const auto from = write.bytes.begin() + static_cast<std::ptrdiff_t>(at);
          part.push_back({.offset = write.offset + at, .bytes = {from, from + static_cast<std::ptrdiff_t>(length)}});
        }
        at += length;
      }
    }
    return part;
  }

  void show(const Write& write) {
    if (write.truncates) {
      current_.resize(write.offset);
      return;
    }
    current_.resize(std::max<std::size_t>(current_.size(), write.offset + write.bytes.size()));
    std::ranges::copy(write.bytes, current_.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }

  void apply(const std::vector<Write>& writes) {
    for (const Write& write : writes) {
      (write.truncates ? durable_->truncate(write.offset) : durable_->write_at(write.offset, write.bytes)).value();
    }
  }

  std::unique_ptr<File> durable_;
  FaultPlan& plan_;
  std::vector<std::byte> current_;
  std::vector<Write> pending_;
  bool dead_ = false;
};

}  // namespace sluicebox::image::testing

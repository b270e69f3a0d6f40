#include "image/formats/vhdx/replayed_file.h"

#include <algorithm>

namespace sluicebox::image::vhdx {

void ReplayedFile::apply(LogChange change) {
  if (change.length == 0) return;
  const std::uint64_t end = change.offset + change.length;
  make_gap(change.offset, end);
  Change made{.end = end, .bytes = nullptr};
  if (!change.zeros) made.bytes = std::make_shared<const std::vector<std::byte>>(std::move(change.bytes));
  changes_[change.offset] = std::move(made);
}

void ReplayedFile::make_gap(std::uint64_t begin, std::uint64_t end) {
  auto at = changes_.lower_bound(begin);
  if (at != changes_.begin() && std::prev(at)->second.end > begin) --at;
  while (at != changes_.end() && at->first < end) {
    const std::uint64_t from = at->first;
    const Change old = at->second;
    at = changes_.erase(at);
    if (from < begin) changes_[from] = Change{.end = begin, .bytes = old.bytes, .skip = old.skip};
    if (old.end > end) at = changes_.insert({end, {old.end, old.bytes, old.skip + (end - from)}}).first;
  }
}

Result<std::uint64_t> ReplayedFile::size() const { return std::max(TRY(file_.size()), least_bytes_); }

Result<std::size_t> ReplayedFile::read_at(std::uint64_t offset, MutableBytes out) const {
  if (!is_changed()) return file_.read_at(offset, out);
  const std::uint64_t bytes = TRY(size());
  if (offset >= bytes) return std::size_t{0};
  out = out.first(std::min<std::uint64_t>(out.size(), bytes - offset));
  TRY(read_padded(file_, offset, out));
  const std::uint64_t end = offset + out.size();
  auto at = changes_.upper_bound(offset);
  if (at != changes_.begin()) --at;
  for (; at != changes_.end() && at->first < end; ++at) {
    const Change& change = at->second;
    const std::uint64_t from = std::max(offset, at->first);
    const std::uint64_t to = std::min(end, change.end);
    if (from >= to) continue;
    std::byte* target = out.data() + (from - offset);
    if (change.bytes) {
      std::memcpy(target, change.bytes->data() + change.skip + (from - at->first), to - from);
    } else {
      std::memset(target, 0, to - from);
    }
  }
  return out.size();
}

Status ReplayedFile::write_back() {
  if (!is_changed()) return {};
  if (TRY(file_.size()) < least_bytes_) TRY(file_.truncate(least_bytes_));
  for (const auto& [begin, change] : changes_) {
    if (change.bytes) {
      TRY(file_.write_at(begin, Bytes(*change.bytes).subspan(change.skip, change.end - begin)));
    } else {
      // A log that asks for zeros over a hole of many tebibytes costs nothing.
      TRY(write_zeros(file_, begin, change.end - begin));
    }
  }
  TRY(file_.sync());
  changes_.clear();
  least_bytes_ = 0;
  return {};
}

Status ReplayedFile::require_written_back() const {
  if (!is_changed()) return {};
  return Error(ErrorCode::kInternal, "the image's log was not replayed before it was written").on(file_.path());
}

Status ReplayedFile::write_at(std::uint64_t offset, Bytes data) {
  TRY(require_written_back());
  return file_.write_at(offset, data);
}

Status ReplayedFile::truncate(std::uint64_t bytes) {
  TRY(require_written_back());
  return file_.truncate(bytes);
}

Status ReplayedFile::allocate(std::uint64_t offset, std::uint64_t length) {
  TRY(require_written_back());
  return file_.allocate(offset, length);
}

Result<FileExtent> ReplayedFile::extent_at(std::uint64_t offset, std::uint64_t length) const {
  // What the log put there counts as data, wherever it is.
  if (is_changed()) return FileExtent{.data = true, .length = length};
  return file_.extent_at(offset, length);
}

}  // namespace sluicebox::image::vhdx

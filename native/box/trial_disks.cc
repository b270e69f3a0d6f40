#include "box/trial_disks.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace sluicebox::box {

namespace {

// The box's own, put aside; and the template's, on its way.
constexpr const char* kAside = ".fresh";
constexpr const char* kBooted = ".booted";

}  // namespace

TrialDisks::TrialDisks(const BoxRecord& record, UniqueFd directory) : directory_(std::move(directory)) {
  overlays_.reserve(record.disks.size());
  for (const DiskRecord& disk : record.disks) overlays_.push_back(disk.overlay);
  drop(kBooted);
  drop(kAside);
}

Status TrialDisks::lay_in(const Templates::Entry& entry) {
  if (entry.disk_digests.size() != overlays_.size()) return Error(ErrorCode::kIo, "a template has other disks");
  laid_in_ = true;
  for (std::size_t i = 0; i < overlays_.size(); ++i) {
    if (!overlays_[i].empty()) TRY(Templates::copy_disk(entry, i, directory_.get(), overlays_[i] + kBooted));
  }
  for (const std::string& overlay : overlays_) {
    if (!overlay.empty()) TRY(put_in_place(overlay));
  }
  return ok_status();
}

Status TrialDisks::put_in_place(const std::string& overlay) const {
  const int at = directory_.get();
  if (::linkat(at, overlay.c_str(), at, (overlay + kAside).c_str(), 0) == 0 &&
      ::renameat(at, (overlay + kBooted).c_str(), at, overlay.c_str()) == 0)
    return ok_status();
  return os_error(errno, "cannot put a template's disk in place", overlay);
}

void TrialDisks::keep() {
  laid_in_ = false;
  drop(kAside);
}

void TrialDisks::undo() {
  if (!std::exchange(laid_in_, false)) return;
  drop(kBooted);
  for (const std::string& overlay : overlays_) {
    if (!overlay.empty()) ::renameat(directory_.get(), (overlay + kAside).c_str(), directory_.get(), overlay.c_str());
  }
}

void TrialDisks::drop(const char* suffix) const {
  for (const std::string& overlay : overlays_) {
    if (!overlay.empty()) ::unlinkat(directory_.get(), (overlay + suffix).c_str(), 0);
  }
}

}  // namespace sluicebox::box

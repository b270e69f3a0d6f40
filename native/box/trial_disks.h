// trial_disks.h: a template's overlays in the place of a box's own, while it is tried whether the box goes on from it.
// Knows: templates, the box's directory. Does not know: QEMU.
// Threads: a worker's.
#pragma once

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "box/record.h"
#include "box/templates.h"

namespace sluicebox::box {

class TrialDisks {
 public:
  // Takes away what a process that was killed in the midst of a trial left. `directory`: the box's.
  TrialDisks(const BoxRecord& record, UniqueFd directory);
  // The box's own are there again, unless the others were kept.
  ~TrialDisks() { undo(); }
  TrialDisks(const TrialDisks&) = delete;
  TrialDisks& operator=(const TrialDisks&) = delete;

  int directory() const { return directory_.get(); }
  // At any moment there is one of each name, and the box starts from it.
  Status lay_in(const Templates::Entry& entry);
  void keep();
  void undo();

 private:
  Status put_in_place(const std::string& overlay) const;
  void drop(const char* suffix) const;

  const UniqueFd directory_;
  std::vector<std::string> overlays_;  // by disk; empty: it has none
  bool laid_in_ = false;
};

}  // namespace sluicebox::box

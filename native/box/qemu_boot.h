// qemu_boot.h: one boot of a virtual machine: QEMU in its walls, and the guest's agent, until the reactor has both.
// Knows: QEMU's command line, QMP, the agent's first words. Does not know: homes, which boot it is.
// Threads: a worker's, which waits.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "box/conversation.h"
#include "box/disks.h"
#include "box/engine.h"
#include "box/machine.h"
#include "box/machine_memory.h"
#include "box/machine_plan.h"
#include "box/qmp_dialogue.h"
#include "protocol/frame_link.h"

namespace sluicebox::box {

class QemuBoot {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  QemuBoot(const BoxRecord& record, LaunchedBox& walls, const CancelToken& cancel, Deadline deadline)
      : record_(record), walls_(walls), cancel_(cancel), deadline_(deadline) {}

  Status start_qemu(int kernel, int initrd, const std::vector<OpenDisk>& disks);
  // A QEMU that takes up what another wrote of a machine, and lays it out to be mapped. It has ended when this returns.
  Result<Template> make_template(const MemoryImage& image, const std::vector<OpenDisk>& disks);
  // The guest runs when this returns, and nobody has greeted its agent yet.
  Status go_on_from(const Template& from, const std::vector<OpenDisk>& disks);
  // It is told what it is only once it listens: the time of day is then as long under way as a message.
  Status meet_guest();
  // Of a guest that was met: whether a copy of it could become another machine.
  bool can_be_copied() const { return own_identity_; }
  // What the guest has become is written to `state`; while it stands still, `meanwhile` may look at its disks. An error
  // in the result: neither was of use. Another: the guest may not run any more. In this time.
  Result<Status> save(const UniqueFd& state, const std::function<Status()>& meanwhile, Deadline deadline);
  // What the failure of a boot has to say beside itself.
  Error explain(Error why);
  // A boot that came to nothing: QEMU is gone when this returns, and another can be made in the same walls.
  Status take_back(Deadline deadline);
  void finish(LaunchedBox& box);

 private:
  QemuPlan plan_of(const std::vector<OpenDisk>& disks, Passed& passed) const;
  Status spawn_qemu(std::uint32_t channel, QemuPlan& plan, Passed& passed);
  QmpDialogue dialogue(Deadline deadline);
  QmpDialogue dialogue() { return dialogue(deadline_); }
  static Status write_state(QmpDialogue& qmp, const UniqueFd& state);
  Status await_exit();
  void forget_qemu();
  Conversation guest();
  Status hear_walls();

  const BoxRecord& record_;
  LaunchedBox& walls_;
  const CancelToken& cancel_;
  const Deadline deadline_;
  const char* phase_ = "prepare";
  std::optional<std::uint32_t> runs_;  // the walls' execution that is QEMU, or is about to be
  bool own_identity_ = true;
  std::optional<MachineParts> parts_;
  protocol::FrameLink agent_;
};

}  // namespace sluicebox::box

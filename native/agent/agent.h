// agent.h: the first process of a box: it takes sessions from the keeper, or serves a virtual machine's host, reaps
// every orphan, and ends the box.
// Knows: the keeper's link, sessions. Does not know: how the box was built, what its host wants with it.
// Threads: one.
#pragma once

#include <memory>
#include <vector>

#include "agent/children.h"
#include "agent/launcher.h"
#include "agent/loop.h"
#include "agent/session.h"
#include "base/unique_fd.h"
#include "protocol/assembler.h"

namespace sluicebox::agent {

class Agent {
 public:
  Agent(std::unique_ptr<Loop> loop, UniqueFd child_signals);
  // Both: until the box is to end. Then the process ends, or the machine.
  [[noreturn]] void serve_keeper(UniqueFd link);
  [[noreturn]] void serve_host(UniqueFd port);

 private:
  [[noreturn]] void run();
  void heard();
  void link_ready();
  bool link_message(const protocol::Received& received, Bytes payload, std::vector<UniqueFd>& descriptors);
  void shut_down(std::uint64_t grace_ms);
  void kill_all(bool forced);
  void sweep();
  [[noreturn]] void leave(int code);

  const std::unique_ptr<Loop> loop_;
  const UniqueFd child_signals_;
  UniqueFd link_;
  Children children_;
  Launcher launcher_;
  Shared shared_{.loop = *loop_, .children = children_, .launcher = launcher_};
  std::vector<std::unique_ptr<Session>> sessions_;
  Watch link_watch_;
  Watch child_watch_;
  Timer grace_;
  Timer last_;
};

}  // namespace sluicebox::agent

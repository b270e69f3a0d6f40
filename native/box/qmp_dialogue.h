// qmp_dialogue.h: QEMU's machine protocol with a worker that waits: while a machine is brought up, before the reactor
// has it. Knows: JSON, sockets. Does not know: what a command does. Threads: a worker's.
//
// QEMU reads what a guest left behind: lines are bounded, and what is no JSON ends the dialogue.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

class QmpDialogue {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // `socket` does not block, and stays its owner's: whole lines are read from it. `other`: what else may be said
  // meanwhile, whose error ends the wait.
  QmpDialogue(int socket, int other, std::function<Status()> heard, const CancelToken& cancel, Deadline deadline)
      : socket_(socket), other_(other), heard_(std::move(heard)), cancel_(cancel), deadline_(deadline) {}

  // Before all else.
  Status greet();
  // kIo with QEMU's own words; kBoxStart when there is no answer; kCancelled.
  Result<nlohmann::json> execute(const std::string& command, const nlohmann::json& arguments = nlohmann::json::object(),
                                 int passed = -1);
  // Until a migration has come to its end, which is to be a good one.
  Status await_migration();

 private:
  Status send(const std::string& line, int passed);
  Result<nlohmann::json> next();
  Status wait(short events);

  const int socket_;
  const int other_;
  const std::function<Status()> heard_;
  const CancelToken& cancel_;
  const Deadline deadline_;
  std::string incoming_;
  std::vector<std::string> migration_;  // its steps that were told and not asked for yet
  std::uint64_t next_id_ = 1;
};

}  // namespace sluicebox::box

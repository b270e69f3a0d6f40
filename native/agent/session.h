// session.h: one host at the other end of a link: its greeting, its requests, its executions.
// Knows: messages, executions. Does not know: other sessions, the keeper.
// Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "agent/children.h"
#include "agent/execution.h"
#include "agent/launcher.h"
#include "agent/loop.h"
#include "agent/outbox.h"
#include "base/unique_fd.h"
#include "protocol/assembler.h"
#include "protocol/frame_link.h"

namespace sluicebox::agent {

// What the sessions of an agent share.
struct Shared {
  Loop& loop;
  Children& children;
  Launcher& launcher;
  bool ending = false;  // nothing is spawned any more
  // In a virtual machine the session's host asks for what is a keeper's business elsewhere, and nothing is spawned
  // before the machine stands.
  bool guest = false;
  bool standing = true;
  std::function<void(std::uint64_t grace_ms)> shut_down = nullptr;
};

class Session {
 public:
  // Greets at once.
  Session(Shared& shared, protocol::FrameLink link, bool leash);

  bool leash() const { return leash_; }
  // By either end: nothing is said or heard any more. Its executions end with the object.
  bool closed() const { return closed_; }
  // Everything said has left the agent.
  bool flushed() const { return closed_ || !outbox_.waiting(); }
  // Lets go of executions that are over.
  void sweep();
  template <typename Visit>
  void each_execution(Visit visit) {
    for (auto& [channel, execution] : executions_) visit(*execution);
  }

 private:
  void ready(std::uint32_t events);
  void receive();
  void room();
  void close();

  // False: the host did what no host of ours does.
  bool fragment(protocol::Received& received, Bytes payload);
  bool message(const protocol::Message& message);
  bool greeting(const protocol::Message& message);
  bool machine(const protocol::Message& message);
  bool freeze(const protocol::Message& message);
  bool thaw(const protocol::Message& message);
  bool greeted_anew(const protocol::Message& message);
  bool shut_down(const protocol::Message& message);
  bool part(const protocol::Message& message);
  bool spawn(const protocol::Message& message);
  bool kill(const protocol::Message& message);
  bool resize(const protocol::Message& message);
  bool input(const protocol::Message& message);
  bool input_end(const protocol::Message& message);
  bool discard(const protocol::Message& message);
  bool credit(const protocol::Message& message);
  Execution* execution(std::uint32_t channel) const;

  Shared& shared_;
  protocol::FrameLink link_;
  const bool leash_;
  bool closed_ = false;
  bool greeted_ = false;
  bool told_machine_ = false;
  bool frozen_ = false;
  protocol::Assembler assembler_;
  std::vector<UniqueFd> descriptors_;  // of the message that is being joined
  Outbox outbox_;
  Watch watch_;
  Timer again_;  // what a turn left of a stream that was read already
  std::map<std::uint32_t, std::unique_ptr<Execution>> executions_;
  std::uint32_t last_resumed_ = 0;
};

}  // namespace sluicebox::agent

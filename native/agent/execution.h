// execution.h: one spawned process: its streams, its signals and deadlines, its end.
// Knows: the process's pid while it is not reaped; frames of its channel. Does not know: other executions.
// Threads: one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "agent/children.h"
#include "agent/input_stream.h"
#include "agent/launcher.h"
#include "agent/loop.h"
#include "agent/outbox.h"
#include "agent/output_stream.h"
#include "protocol/messages.h"

namespace sluicebox::agent {

class Execution final : public Parent {
 public:
  Execution(Loop& loop, Children& children, Outbox& outbox, std::uint32_t channel);
  // Kills its process group if it still lives; what it held open is closed.
  ~Execution() override;

  // Answers the request. False: nothing was started, nothing more will be said.
  bool start(Launcher& launcher, protocol::Spawn&& request, std::vector<UniqueFd> passed, std::uint32_t number);

  protocol::Killed kill(const protocol::Kill& request);
  // SIGKILL to its group. `forced`: because killing it gently was of no avail.
  void end(bool forced);
  protocol::Resized resize(const protocol::Resize& size) const;
  InputStream* input() { return in_ ? &*in_ : nullptr; }
  // Null if that stream is not framed.
  OutputStream* output(protocol::Stream stream);
  // The outbox is empty again.
  void resume();

  // Nothing is left to do: reaped, and nobody holds its output.
  bool over() const;

 private:
  struct Deadline {
    std::uint64_t timeout_ms;
    int signal;
    std::int64_t grace_ms;
  };

  void ended(int status, const rusage& usage) override;
  void arm(const Deadline& deadline);
  void force_at(Nanoseconds moment);
  int signal(int number, protocol::KillScope scope) const;

  Loop& loop_;
  Children& children_;
  Outbox& outbox_;
  const std::uint32_t channel_;

  pid_t pid_ = 0;  // 0: none, or reaped; only what is not reaped may be signalled
  Nanoseconds started_ = 0;
  std::uint64_t started_at_ms_ = 0;
  Timer timeout_;
  Timer force_;
  bool timed_out_ = false;
  bool forced_ = false;

  std::optional<InputStream> in_;
  std::optional<OutputStream> out_;
  std::optional<OutputStream> err_;
  bool terminal_ = false;
  TerminalSize terminal_size_;
};

}  // namespace sluicebox::agent

// execution.h: the host's side of one process in a box: its streams, its commands, its end.
// Knows: session, pumps, messages. Does not know: queues, promises, how a box is walled.
// Threads: the reactor's; the listener is called there too.
//
// Invariants:
// 1. The listener hears exactly one of exited() and lost(), unless spawning failed; nothing comes from the agent after.
// 2. Each sink is finished once, after its last byte, whatever becomes of the session.
// 3. Every write, end, kill and resize is answered.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "box/framed_input.h"
#include "box/input_pump.h"
#include "box/output_pump.h"
#include "box/session.h"
#include "protocol/messages.h"

namespace sluicebox::box {

enum class Output : std::uint8_t { kNull, kPipe, kStdout };

struct ExecutionOptions {
  protocol::Spawn spawn;  // but for in, out, err and window, which follow from these
  bool stdin_pipe = false;
  Output out = Output::kPipe;
  Output err = Output::kPipe;
  bool framed = false;  // frames within credit instead of descriptors
  std::uint64_t high_water_mark = 1 << 20;
};

class ExecutionListener {
 public:
  virtual ~ExecutionListener() = default;
  virtual StreamSink& sink(protocol::Stream stream) = 0;
  // A command's answer; of a kill, whether the signal was delivered.
  virtual void answered(std::uint32_t request, Result<bool> answer) = 0;
  // The program waits: this stream's sink is full. Told once a stream.
  virtual void stalled(protocol::Stream stream) = 0;
  virtual void exited(const protocol::Exited& exited) = 0;
  virtual void lost(const Error& why) = 0;
};

class Execution final : public Channel, public std::enable_shared_from_this<Execution> {
 public:
  // The process was spawned (its pid in the box), or why not.
  using Spawned = std::function<void(Result<std::uint32_t> pid)>;

  Execution(Reactor& reactor, Session& session, ExecutionOptions options, std::shared_ptr<ExecutionListener> listener);
  ~Execution() override = default;

  // `spawned` is called once, later or at once.
  void spawn(Spawned spawned);

  void write(std::uint32_t request, std::vector<std::byte> bytes);
  void end_input(std::uint32_t request);
  void kill(std::uint32_t request, const protocol::Kill& kill);
  void resize(std::uint32_t request, const protocol::Resize& resize);
  // The sink has room again.
  void resume(protocol::Stream stream);
  // Says yes to a command that has nothing to wait for.
  void answer(std::uint32_t request) { listener_->answered(request, true); }
  // Nobody will read this stream.
  void discard(protocol::Stream stream);
  // Whether bytes that were read must be told (a framed stream gives credit for them).
  bool framed() const { return options_.framed; }

  Status received(protocol::Type type, std::uint32_t request, Bytes payload, std::vector<UniqueFd>& passed) override;
  void lost(const Error& why) override;

 private:
  // A framed output stream.
  struct Framed {
    StreamSink* sink = nullptr;  // null: finished, or discarded
    std::uint64_t credit = 0;    // given and not used
    std::uint64_t total = 0;
  };
  struct Passed {
    UniqueFd in;
    UniqueFd out;
    UniqueFd err;
  };

  Result<std::vector<UniqueFd>> make_pipes();
  void finish_unused_sinks();
  Status started(const protocol::Spawned& spawned, std::vector<UniqueFd>& passed);
  Status start_pumps(UniqueFd terminal);
  void spawn_failed(const protocol::SpawnFailed& failed);
  Status took_output(const protocol::Data& data);
  void end_output(protocol::Stream stream);
  void ended(protocol::Exited exited);
  void give_credit(protocol::Stream stream);
  void tell_stalled(protocol::Stream stream);
  void close_input();
  void let_go_when_done();
  std::optional<OutputPump>& pump(protocol::Stream stream) { return stream == protocol::Stream::kStderr ? err_ : out_; }
  Framed& framed(protocol::Stream stream) { return stream == protocol::Stream::kStderr ? framed_err_ : framed_out_; }

  Reactor& reactor_;
  Session* session_;  // null once it is lost
  ExecutionOptions options_;
  const std::shared_ptr<ExecutionListener> listener_;
  Spawned spawned_;
  std::uint32_t channel_ = 0;
  bool ended_ = false;
  bool told_stalled_[2] = {false, false};
  std::unordered_map<std::uint32_t, protocol::Type> asked_;  // requests that the agent has to answer

  // Passed descriptors: our ends.
  Passed ours_;
  std::optional<OutputPump> out_;
  std::optional<OutputPump> err_;
  std::optional<InputPump> in_;

  // Frames.
  Framed framed_out_;
  Framed framed_err_;
  std::optional<FramedInput> framed_in_;
};

}  // namespace sluicebox::box

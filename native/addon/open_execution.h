// open_execution.h: one execution as the queue has it: its lanes, its news, its four reserved slots.
// Knows: box/, lanes, sources. Does not know: promises.
// Threads: as a listener the reactor's; open() and release() on the JavaScript thread; kill_unowned() on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "addon/mailbox.h"
#include "box/execution.h"
#include "event_queue/lane.h"

namespace sluicebox::addon {

class OpenExecution final : public box::ExecutionListener, public std::enable_shared_from_this<OpenExecution> {
 public:
  // Two lanes, news, and the last word.
  static constexpr event_queue::Share kShare{.channels = 4, .bytes = 0};

  // Errors as Queue::reserve().
  static Result<std::shared_ptr<OpenExecution>> open(event_queue::Queue& queue, std::shared_ptr<box::Reactor> reactor,
                                                     std::uint64_t high_water_mark);
  OpenExecution(std::shared_ptr<event_queue::Source> source, std::shared_ptr<box::Reactor> reactor);

  event_queue::HandleId id() const { return id_; }
  Mailbox& mailbox() { return mailbox_; }
  // From the reactor's thread, before the first answer.
  void set_execution(std::shared_ptr<box::Execution> execution) { execution_ = std::move(execution); }

  // Runs `use` with the execution, on the reactor's thread.
  void with(std::function<void(box::Execution&)> use);
  // 1 is stdout, 2 is stderr; null for any other number.
  event_queue::Lane* lane(std::uint32_t number);
  // Bytes were read: a framed stream may send more.
  void was_read(std::uint32_t number);
  // Nobody reads or asks any more. The process goes on.
  void release();
  // The call that made it was given up: no process remains.
  void kill_unowned();

  box::StreamSink& sink(protocol::Stream stream) override;
  void answered(std::uint32_t request, Result<bool> answer) override;
  void stalled(protocol::Stream stream) override;
  void exited(const protocol::Exited& exited) override;
  void lost(const Error& why) override;

 private:
  class LaneSink final : public box::StreamSink {
   public:
    std::shared_ptr<event_queue::Lane> lane;
    std::atomic<bool> resume_posted{false};
    MutableBytes space(std::size_t limit) override { return lane->space(limit); }
    void filled(std::size_t count) override { lane->commit(count); }
    std::size_t room() override { return lane->free_bytes(); }
    void finish() override { lane->finish(); }
  };
  static constexpr std::uint32_t kNewsChannel = 2;
  static constexpr std::uint32_t kTerminalChannel = 3;

  Status open_lanes(const std::shared_ptr<event_queue::Source>& source, std::uint64_t high_water_mark);
  void resume(std::uint32_t number);
  LaneSink& lane_sink(std::uint32_t number) { return number == 2 ? err_ : out_; }

  const event_queue::HandleId id_;
  const std::shared_ptr<box::Reactor> reactor_;
  LaneSink out_;
  LaneSink err_;
  Mailbox mailbox_;
  std::shared_ptr<box::Execution> execution_;  // the reactor's
};

}  // namespace sluicebox::addon

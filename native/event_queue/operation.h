// operation.h: the producer's side of one piece of work: reports while it runs, and exactly one last word.
// Knows: its source, its handle, payloads. Does not know: the work, or the promise at the other end.
// Threads: report() from any thread of the work; complete() and withdraw() once, from one of them, or never.
#pragma once

#include <cstdint>
#include <memory>

#include "base/progress.h"
#include "base/result.h"
#include "event_queue/payload.h"
#include "event_queue/queue.h"
#include "event_queue/source.h"

namespace sluicebox::event_queue {

class Operation final : public ProgressSink {
 public:
  enum class Progress : bool { kNo, kYes };
  // Errors as Queue::reserve(). `kNo` saves the slot that progress would hold; reports are then ignored.
  static Result<std::unique_ptr<Operation>> open(Queue& queue, Progress progress);
  // Without a last word, it is said here: a completion flagged kAbandoned. No promise is left to silence.
  ~Operation() override;

  HandleId id() const { return source_->id(); }
  // Outlives the operation: for those who only want to cancel it.
  const std::shared_ptr<InFlight>& in_flight() const { return in_flight_; }
  CancelToken& cancel() const { return in_flight_->cancel; }

  // At most one progress record waits, whatever the rate; none is queued once complete() was called.
  void report(const ProgressReport& report) override;
  // Leaves the payload under the handle and posts the completion. When the handle was claimed before, or the queue is
  // closed, the payload is reclaimed instead.
  void complete(OwnedPayload payload, std::uint8_t flags = 0);
  // For a submission that fails at once, before the work began: nothing will be posted. The winner's claim, or nothing
  // when an abort or a close has settled the handle already.
  std::optional<Claim> withdraw();

 private:
  Operation(std::shared_ptr<Source> source, std::shared_ptr<InFlight> in_flight, Progress progress)
      : source_(std::move(source)), in_flight_(std::move(in_flight)), progress_(progress) {}

  static constexpr std::uint32_t kLastWordChannel = 0;
  static constexpr std::uint32_t kProgressChannel = 1;

  const std::shared_ptr<Source> source_;
  const std::shared_ptr<InFlight> in_flight_;
  const Progress progress_;
  bool ended_ = false;
};

}  // namespace sluicebox::event_queue

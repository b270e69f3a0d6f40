#include "event_queue/operation.h"

#include <utility>

namespace sluicebox::event_queue {

Result<std::unique_ptr<Operation>> Operation::open(Queue& queue, Progress progress) {
  auto in_flight = std::make_shared<InFlight>();
  auto source = TRY(queue.reserve({.channels = progress == Progress::kYes ? 2U : 1U, .bytes = 0}, in_flight));
  return std::unique_ptr<Operation>(new Operation(std::move(source), std::move(in_flight), progress));
}

Operation::~Operation() {
  if (!ended_) complete(nullptr, kAbandoned);
}

void Operation::report(const ProgressReport& report) {
  if (progress_ == Progress::kNo) return;
  in_flight_->progress.put(report, [this] { source_->post(kProgressChannel, {.kind = RecordKind::kProgress}); });
}

void Operation::complete(OwnedPayload payload, std::uint8_t flags) {
  if (std::exchange(ended_, true)) return;
  in_flight_->progress.finish();
  if (payload != nullptr) source_->queue().handles().deposit(id(), arm(std::move(payload)));
  // kClosed needs no care: finish_close() claims every handle, and with it reclaims what was deposited.
  source_->post(kLastWordChannel, {.kind = RecordKind::kCompletion, .flags = flags});
}

std::optional<Claim> Operation::withdraw() {
  if (std::exchange(ended_, true)) return std::nullopt;
  in_flight_->progress.finish();
  return source_->queue().claim(id());
}

}  // namespace sluicebox::event_queue

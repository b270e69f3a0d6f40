#include "box/framed_input.h"

#include <algorithm>

namespace sluicebox::box {

void FramedInput::write(std::uint32_t request, std::vector<std::byte> bytes) {
  if (closed_ || ended_) return answer_(request, stdin_closed());
  pending_.push_back({.request = request, .bytes = std::move(bytes), .last = false});
  push();
}

void FramedInput::end(std::uint32_t request) {
  if (closed_ || ended_) return answer_(request, ok_status());
  ended_ = true;
  pending_.push_back({.request = request, .bytes = {}, .last = true});
  push();
}

void FramedInput::credit(std::uint64_t bytes) {
  credit_ += bytes;
  push();
}

void FramedInput::close() {
  closed_ = true;
  done_ = 0;
  std::deque<Pending> pending;
  pending.swap(pending_);
  for (const Pending& each : pending) answer_(each.request, each.last ? ok_status() : stdin_closed());
}

void FramedInput::push() {
  while (!pending_.empty()) {
    Pending& first = pending_.front();
    while (done_ < first.bytes.size() && credit_ > 0) {
      const std::size_t take =
          std::min<std::uint64_t>({first.bytes.size() - done_, credit_, std::uint64_t{protocol::kMaxData}});
      session_.send_data(channel_, protocol::Stream::kStdin, Bytes(first.bytes).subspan(done_, take));
      done_ += take;
      credit_ -= take;
    }
    if (done_ < first.bytes.size()) return;
    if (first.last) session_.send(protocol::Type::kInputEnd, channel_, 0, {});
    const std::uint32_t request = first.request;
    pending_.pop_front();
    done_ = 0;
    answer_(request, ok_status());
  }
}

}  // namespace sluicebox::box

#include "agent/outbox.h"

#include <cerrno>

namespace sluicebox::agent {

void Outbox::send(protocol::Type type, std::uint32_t channel, std::uint32_t request, Bytes payload,
                  UniqueFd descriptor) {
  if (closed_) return;
  const protocol::Header header{.length = static_cast<std::uint32_t>(payload.size()),
                                .type = type,
                                .more = false,
                                .channel = channel,
                                .request = request};
  if (queue_.empty() && !held_) {
    const Sent sent = try_send(header, payload, descriptor);
    if (sent == Sent::kYes) {
      if (link_.unsent()) full_();
      return;
    }
    if (sent == Sent::kBroken) return give_up();
  }
  const std::size_t size = protocol::kHeaderSize + payload.size();
  if (size > kLimit - queued_bytes_) return give_up();
  queued_bytes_ += size;
  const bool first = queue_.empty();
  queue_.push_back({header, {payload.begin(), payload.end()}, std::move(descriptor)});
  if (first && !held_) full_();
}

void Outbox::flush() {
  while (held_ ? before_hold_ > 0 : !queue_.empty()) {
    const Item& item = queue_.front();
    const Sent sent = try_send(item.header, item.payload, item.descriptor);
    if (sent == Sent::kFull) return;
    if (sent == Sent::kBroken) return give_up();
    queued_bytes_ -= protocol::kHeaderSize + item.payload.size();
    queue_.pop_front();
    if (held_) --before_hold_;
  }
  if (!link_.unsent()) return;
  const Status flushed = link_.flush();
  if (!flushed.ok() && flushed.error().os_error != EAGAIN) give_up();
}

void Outbox::forget() {
  queue_.clear();
  queued_bytes_ = 0;
  held_ = false;
}

void Outbox::close() {
  closed_ = true;
  before_hold_ = 0;
  queue_.clear();
  queued_bytes_ = 0;
}

Outbox::Sent Outbox::try_send(const protocol::Header& header, Bytes payload, const UniqueFd& descriptor) {
  const int fd = descriptor.get();
  const Status sent = link_.send(header, payload, std::span(&fd, fd >= 0 ? 1 : 0));
  if (sent.ok()) return Sent::kYes;
  return sent.error().os_error == EAGAIN ? Sent::kFull : Sent::kBroken;
}

void Outbox::give_up() {
  close();
  broken_();
}

}  // namespace sluicebox::agent

#include "protocol/assembler.h"

namespace sluicebox::protocol {

namespace {

constexpr std::size_t kKept = 4 * kMaxPayload;

}  // namespace

Result<std::optional<Message>> Assembler::add(const Header& header, Bytes payload) {
  if (!open_) {
    // A long message is a rare one; its memory is not kept for the next.
    if (parts_.capacity() > kKept) parts_ = {};
    if (!header.more) return std::optional(Message{header, payload});
    open_ = header;
    parts_.clear();
  } else if (header.type != open_->type || header.channel != open_->channel || header.request != open_->request) {
    return Error(ErrorCode::kIo, "a message was interrupted by another");
  }
  // An empty fragment would let a peer go on for ever.
  if (payload.empty() && header.more) return Error(ErrorCode::kIo, "an empty fragment came");
  if (payload.size() > max_message_ - parts_.size()) return Error(ErrorCode::kIo, "a message grew past its limit");
  parts_.insert(parts_.end(), payload.begin(), payload.end());
  if (header.more) return std::optional<Message>();
  open_.reset();
  return std::optional(Message{header, parts_});
}

}  // namespace sluicebox::protocol

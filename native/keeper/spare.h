// spare.h: a beginning of the usual kind, made before anybody ordered it: the host's root over a layer in memory.
// Knows: beginnings, what they took from the host. Does not know: the box's directory, the owner.
// Threads: the keeper's one.
#pragma once

#include "keeper/beginning.h"
#include "protocol/messages.h"
#include "walls/host_state.h"

namespace sluicebox::keeper {

class Spare {
 public:
  static Result<Spare> make(int agent);
  Spare(Spare&&) = default;
  Spare& operator=(Spare&&) = delete;
  ~Spare() { end(beginning_); }

  // Whether a box of that order comes out as one that is begun now would.
  bool fits(const protocol::Launch& launch) const;
  Beginning take() && { return std::move(beginning_); }

 private:
  Spare(walls::HostState host, Beginning beginning) : host_(std::move(host)), beginning_(std::move(beginning)) {}

  walls::HostState host_;
  Beginning beginning_;
};

}  // namespace sluicebox::keeper

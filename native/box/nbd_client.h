// nbd_client.h: reads of a disk that a QEMU of ours exports, so that it does to each range what reading does there.
// Knows: NBD. Does not know: why anybody reads.
// Threads: one worker's.
//
// Source: the NetworkBlockDevice project, doc/proto.md (fixed newstyle negotiation, simple replies).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

class NbdClient {
 public:
  static constexpr std::uint32_t kLongestRead = std::uint32_t{1} << 20;

  // `socket`: connected, blocking. Takes the export of that name; a silent peer is given up after `patience`.
  static Result<NbdClient> negotiate(UniqueFd socket, const std::string& name, std::chrono::seconds patience);

  std::uint64_t size() const { return size_; }
  Status read(std::uint64_t offset, MutableBytes out);

 private:
  explicit NbdClient(UniqueFd socket) : socket_(std::move(socket)) {}
  Status greet();
  Status choose(const std::string& name);
  Status send(Bytes bytes);
  Status receive(MutableBytes bytes);

  UniqueFd socket_;
  std::uint64_t size_ = 0;
  std::uint64_t next_ = 1;
};

}  // namespace sluicebox::box

// engine.h: what stands between a box and the host: the contract that each kind of wall fulfils.
// Knows: records. Does not know: states, executions, queues.
// Threads: launch() on a worker, which may wait; what it gives belongs to the reactor from then on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "box/home.h"
#include "box/machine.h"
#include "box/machine_memory.h"
#include "box/record.h"
#include "protocol/frame_link.h"

namespace sluicebox::box {

// A box whose agent has answered.
struct LaunchedBox {
  UniqueFd process;                  // the keeper's pidfd
  UniqueFd control;                  // SEQPACKET: kStop to it, kEnded from it; our hang-up ends the box
  protocol::FrameLink session;       // to the agent, past the hellos
  std::unique_ptr<Machine> machine;  // a virtual machine's QEMU; null: there is none
  std::uint32_t first_uid = 0;
  std::vector<std::string> warnings;
};

class Templates;

// What a box goes on from instead of booting; nothing of it: it boots.
struct Origin {
  const MemoryImage* memory = nullptr;
  // For a box that has never run: whether a like one is among them is for the engine to see, and to see to.
  const Templates* templates = nullptr;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // What virtual machines are made of on this host; where it is missing, why and what to do.
  struct Means {
    std::string qemu;
    std::string kernel;    // its release
    std::string identity;  // of this very QEMU: what it wrote of a machine no other need understand
    std::optional<Error> missing;
    std::optional<Error> no_host_root;  // there are machines, and none whose root is the host's
  };
  virtual Means means() { return {}; }
  // Whether boxes of namespaces come up on this host: one is made in a home of its own, and taken away. On a worker.
  virtual Status try_out() { return {}; }
  // What a new box needs on disk before it starts: notes it in the record, which is then written. On a worker; it may
  // take minutes. `directory`: the box's, in its home.
  virtual Status make_disks(BoxRecord& /*record*/, const std::string& /*directory*/, const CancelToken& /*cancel*/,
                            ProgressSink& /*progress*/) {
    return {};
  }
  // kBoxStart when the box could not be built, with what was left of it taken away; kUnsupported for a limit that was
  // asked for and cannot be had; kCancelled.
  virtual Result<LaunchedBox> launch(const BoxRecord& record, Home::Held held, const Origin& origin,
                                     const CancelToken& cancel, std::chrono::steady_clock::time_point deadline) = 0;
  // On a worker: does ahead what the next launch can find done.
  virtual void prepare() {}
  // What was prepared and not taken for so long goes.
  virtual void retire(std::chrono::steady_clock::duration age) { static_cast<void>(age); }
  // The same for all of it, and nothing is prepared any more.
  virtual void close() {}
};

}  // namespace sluicebox::box

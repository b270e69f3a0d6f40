// machine.h: a virtual machine's QEMU as its box has it, beside the guest's agent: the process, its QMP, its console.
// Knows: the session of the namespaces that QEMU runs in, QMP. Does not know: boxes' states.
// Threads: made on a worker; from attach() on the reactor's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "box/console.h"
#include "box/qmp.h"
#include "box/session.h"

namespace sluicebox::box {

// What a launch gives, all descriptors not blocking.
struct MachineParts {
  protocol::FrameLink walls;  // to the agent of the namespaces, past its hello; QEMU is its execution kQemuChannel
  UniqueFd qmp;
  Console console;
  Console messages;  // QEMU's own, on its stderr
};
inline constexpr std::uint32_t kQemuChannel = 1;

class Machine {
 public:
  // A disk as QEMU has it now.
  struct Chain {
    bool moving = false;             // to another base, or under a new layer: one at a time
    unsigned tried = 0;              // moves so far, those too that came to nothing: each has block nodes of its own
    std::string active;              // the node that the guest writes to
    std::vector<std::string> below;  // nodes under it that do not go by themselves, nearest first
  };
  using Chains = std::map<std::size_t, Chain>;  // by disk; what was never moved may be missing

  explicit Machine(MachineParts parts, Chains chains = {});
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  struct End {
    bool guest_shutdown = false;  // the guest turned itself off, orderly
    std::string why;              // else, for people
  };
  // `ended` is called once, unless this is destroyed before; this may be destroyed in it.
  Status attach(Reactor& reactor, std::function<void(End)> ended);

  Qmp& qmp() { return *qmp_; }
  Chain& chain(std::size_t disk);
  bool is_moving() const;
  // Its guest runs no more, and nobody answers for it; QEMU itself still has to close the disks.
  bool is_off() const { return shutdown_.has_value(); }
  // Hears of each step of a migration, until it is told otherwise.
  void on_migration(std::function<void(const std::string& status)> heard) { migration_ = std::move(heard); }
  // The last that the guest said, and QEMU.
  std::string tail() const;
  // QEMU has nothing under way, and could be handed over.
  bool is_idle() const;
  // For who has it next: the descriptors, with the link of the namespaces around QEMU. This one hears nothing any more.
  void release(std::function<void(Result<MachineParts>)> done);
  const Chains& chains() const { return chains_; }
  // QEMU alone.
  std::string messages() const { return parts_.messages.tail(); }

 private:
  class Process;
  class Drain final : public Watcher {
   public:
    Drain(Machine& machine, Console& console) : machine_(machine), console_(console) {}
    void ready(std::uint32_t events) override { machine_.drain(console_, events); }

   private:
    Machine& machine_;
    Console& console_;
  };
  void drain(Console& console, std::uint32_t events);
  void heard(const std::string& event, const nlohmann::json& data);
  void ended(const std::string& how);

  MachineParts parts_;
  Reactor* reactor_ = nullptr;
  std::function<void(End)> ended_;
  std::unique_ptr<Session> walls_;
  std::unique_ptr<Qmp> qmp_;
  Drain console_drain_{*this, parts_.console};
  Drain messages_drain_{*this, parts_.messages};
  Chains chains_;
  std::function<void(const std::string&)> migration_;
  std::optional<std::string> shutdown_;  // QEMU's reason
  // Guards a handing over against the end of this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluicebox::box

#include "box/machine.h"

#include <sys/epoll.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "box/qemu_command.h"
#include "protocol/messages.h"

namespace sluicebox::box {

// QEMU as an execution of the namespaces around it.
class Machine::Process final : public Channel {
 public:
  explicit Process(Machine& machine) : machine_(&machine) {}
  void forget() { machine_ = nullptr; }

  Status received(protocol::Type type, std::uint32_t, Bytes payload, std::vector<UniqueFd>&) override {
    if (type != protocol::Type::kExited || machine_ == nullptr) return ok_status();
    const protocol::Exited exited = TRY(protocol::decode_exited(payload));
    std::exchange(machine_, nullptr)
        ->ended(std::string("QEMU ended by ") + (exited.signaled ? "signal " : "exit ") + std::to_string(exited.code));
    return ok_status();
  }
  void lost(const Error& why) override {
    if (machine_ != nullptr)
      std::exchange(machine_, nullptr)->ended("the namespaces around QEMU ended: " + why.message);
  }

 private:
  Machine* machine_;
};

Machine::Machine(MachineParts parts, Chains chains) : parts_(std::move(parts)), chains_(std::move(chains)) {}

Machine::~Machine() {
  *alive_ = false;
  if (reactor_ == nullptr) return;
  ended_ = nullptr;
  for (Console* console : {&parts_.console, &parts_.messages}) {
    if (console->valid()) reactor_->unwatch(console->get());
  }
  if (qmp_) qmp_->end(Error(ErrorCode::kBoxLost, "the box's QEMU is gone"));
  if (walls_) walls_->finish(Error(ErrorCode::kBoxLost, "the box is gone"));
}

Status Machine::attach(Reactor& reactor, std::function<void(End)> ended) {
  reactor_ = &reactor;
  ended_ = std::move(ended);
  walls_ = std::make_unique<Session>(reactor, std::move(parts_.walls), [](const Error&, Session::End) {});
  if (walls_->open(std::make_shared<Process>(*this)) != kQemuChannel)
    return Error(ErrorCode::kInternal, "QEMU is not the first execution of its namespaces");
  TRY(walls_->start());
  qmp_ = std::make_unique<Qmp>(reactor, std::move(parts_.qmp),
                               [this](const std::string& event, const nlohmann::json& data) { heard(event, data); });
  TRY(qmp_->start());
  TRY(reactor.watch(parts_.console.get(), EPOLLIN, &console_drain_));
  return reactor.watch(parts_.messages.get(), EPOLLIN, &messages_drain_);
}

bool Machine::is_idle() const {
  return qmp_->is_idle() && !is_moving() && parts_.console.valid() && parts_.messages.valid();
}

void Machine::release(std::function<void(Result<MachineParts>)> done) {
  walls_->hand_over([this, alive = alive_, done = std::move(done)](Result<protocol::FrameLink> walls) {
    if (!*alive) return done(Error(ErrorCode::kBoxLost, "the box's QEMU is gone"));
    if (!walls.ok()) return done(std::move(walls).error());
    for (Console* console : {&parts_.console, &parts_.messages}) {
      if (console->valid()) reactor_->unwatch(console->get());
    }
    parts_.walls = std::move(walls).value();
    parts_.qmp = qmp_->release();
    done(std::move(parts_));
  });
}

void Machine::drain(Console& console, std::uint32_t) {
  if (console.read()) return;
  reactor_->unwatch(console.get());
  console.close();
}

Machine::Chain& Machine::chain(std::size_t disk) {
  const auto [found, fresh] = chains_.try_emplace(disk);
  if (fresh) found->second.active = disk_node(disk);
  return found->second;
}

bool Machine::is_moving() const {
  return std::any_of(chains_.begin(), chains_.end(), [](const auto& each) { return each.second.moving; });
}

void Machine::heard(const std::string& event, const nlohmann::json& data) {
  if (event == "MIGRATION" && migration_) {
    const auto status = data.find("status");
    if (status != data.end() && status->is_string()) migration_(status->get<std::string>());
  }
  if (event != "SHUTDOWN" || shutdown_) return;
  const auto reason = data.find("reason");
  shutdown_ = reason != data.end() && reason->is_string() ? reason->get<std::string>() : std::string("unknown");
}

// Its descriptors may hold last words yet, among them why it ended.
void Machine::ended(const std::string& how) {
  if (qmp_) qmp_->ready(EPOLLIN);
  for (Console* console : {&parts_.console, &parts_.messages}) {
    if (console->valid()) drain(*console, EPOLLIN);
  }
  End end{.guest_shutdown = shutdown_ == "guest-shutdown", .why = how};
  if (shutdown_) end.why = "the virtual machine stopped: " + *shutdown_;
  if (const auto told = std::exchange(ended_, nullptr)) told(std::move(end));
}

std::string Machine::tail() const { return parts_.console.tail() + parts_.messages.tail(); }

}  // namespace sluicebox::box

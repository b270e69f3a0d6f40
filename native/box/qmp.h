// qmp.h: QEMU's machine protocol: commands as lines of JSON, each answered once, and events among the answers.
// Knows: JSON, the reactor. Does not know: what a command does, boxes.
// Threads: the reactor's.
//
// QEMU may be owned by its guest: lines are bounded, what is no JSON or no answer of ours ends the conversation.
// Source: QEMU, docs/interop/qmp-spec.rst.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "box/reactor.h"

namespace sluicebox::box {

class Qmp final : public Watcher {
 public:
  using Answer = std::function<void(Result<nlohmann::json> value)>;
  using Event = std::function<void(const std::string& name, const nlohmann::json& data)>;

  Qmp(Reactor& reactor, UniqueFd socket, Event event);
  ~Qmp() override;
  Qmp(const Qmp&) = delete;
  Qmp& operator=(const Qmp&) = delete;

  Status start();
  // `passed` travel with the command (add-fd, getfd). The answer comes once, at the latest when the conversation ends:
  // kIo with QEMU's own words, kBoxLost without QEMU.
  void execute(const std::string& command, const nlohmann::json& arguments, Answer answer,
               std::vector<UniqueFd> passed = {});
  // Every command was answered.
  bool is_idle() const { return waiting_.empty() && outgoing_.empty(); }
  // For who speaks with QEMU next; this is over.
  UniqueFd release();
  // Everyone who waits hears this.
  void end(const Error& why);

  void ready(std::uint32_t events) override;

 private:
  struct Line {
    std::string text;
    std::size_t sent = 0;
    std::vector<UniqueFd> passed;
  };
  void flush();
  bool take_lines();
  bool take(const std::string& line);

  Reactor& reactor_;
  UniqueFd socket_;
  Event event_;
  std::deque<Line> outgoing_;
  std::string incoming_;
  std::map<std::uint64_t, Answer> waiting_;
  std::uint64_t next_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluicebox::box

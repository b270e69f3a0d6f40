// session.h: the host's end of the conversation with one box's agent: frames out, frames in, who waits for which
// answer. Knows: frames, the reactor. Does not know: what an execution is made of, boxes, queues. Threads: the
// reactor's.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/unique_fd.h"
#include "box/reactor.h"
#include "protocol/assembler.h"
#include "protocol/frame_link.h"
#include "protocol/messages.h"

namespace sluicebox::box {

// What arrives for one channel. Whoever handles it may end the session.
class Channel {
 public:
  virtual ~Channel() = default;
  // kIo: the agent said what no agent of ours says; the session is of no more use.
  virtual Status received(protocol::Type type, std::uint32_t request, Bytes payload, std::vector<UniqueFd>& passed) = 0;
  // The session is gone; nothing follows.
  virtual void lost(const Error& why) = 0;
};

class Session final : public Watcher {
 public:
  enum class End : std::uint8_t { kHungUp, kBrokeOff };
  // Called once, when the agent hung up; or said what it must not, or fell silent. The session may be destroyed in it.
  using Lost = std::function<void(Error why, End end)>;

  Session(Reactor& reactor, protocol::FrameLink link, Lost lost);
  ~Session() override;

  Status start();
  // Never waits: what the socket does not take now goes out when it does.
  void send(protocol::Type type, std::uint32_t channel, std::uint32_t request, Bytes payload,
            std::vector<UniqueFd> passed = {});
  void send_data(std::uint32_t channel, protocol::Stream stream, Bytes bytes);

  // A channel of its own, never used before in this session.
  std::uint32_t open(std::shared_ptr<Channel> channel);
  void close(std::uint32_t number) { channels_.erase(number); }
  std::size_t channels() const { return channels_.size(); }

  // While the agent cannot answer, nobody asks whether it does.
  void rest(bool resting);

  // The agent falls silent, and so does this end: what is sent meanwhile goes out after thaw(). Until that is called,
  // whether `done` says ok or not, nothing is on its way in either direction once it said ok.
  void freeze(bool file_systems, std::function<void(Status)> done);
  void thaw();

  // Another will speak here: `done` is handed the link, with nothing on its way in either direction, and the session is
  // over. part(): nothing of the executions is left then, and each channel is told that it is gone.
  using HandedOver = std::function<void(Result<protocol::FrameLink>)>;
  void part(const Error& why, HandedOver done);
  void hand_over(HandedOver done);

  // Reads what the agent said before it ended, then tells every channel that it is gone.
  void finish(const Error& why);

  void ready(std::uint32_t events) override;

 private:
  struct Outgoing {
    protocol::Header header;
    std::vector<std::byte> payload;
    std::vector<UniqueFd> passed;
  };
  bool flush();
  Status receive_all();
  Status dispatch(const protocol::Message& message);
  void answer_freeze(Status done);
  void end_with(HandedOver done, protocol::Type question);
  Status parted();
  void lose_channels(const Error& why);
  void fail(Error why, End end = End::kBrokeOff);
  void watch_health();
  void check_health();

  Reactor& reactor_;
  protocol::FrameLink link_;
  Lost lost_;
  bool writable_watched_ = false;
  std::deque<Outgoing> outgoing_;
  bool held_ = false;
  std::size_t before_hold_ = 0;  // how many of the outgoing ones go out all the same
  std::function<void(Status)> frozen_;
  HandedOver parting_;
  std::uint32_t freezes_ = 0;  // so far: the last one's request
  bool unanswered_ = false;
  std::optional<Reactor::TimerId> patience_;
  protocol::Assembler assembler_;
  std::vector<UniqueFd> passed_;  // of the message that is being joined
  std::unordered_map<std::uint32_t, std::shared_ptr<Channel>> channels_;
  std::uint32_t next_channel_ = 1;
  std::optional<Reactor::TimerId> health_;
  Clock::time_point heard_ = Clock::now();
  bool pinged_ = false;
  // Guards against use after the session died in a callback of its own.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::array<std::byte, protocol::kMaxPayload> buffer_;
};

}  // namespace sluicebox::box

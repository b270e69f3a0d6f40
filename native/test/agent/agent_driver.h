// agent_driver.h: the host's and the keeper's side of an agent that runs as a child process of the tests.
// Knows: the protocol, the agent's binary. Every wait has a deadline; a missed one fails the test and says what came.
// Threads: one.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/frame_link.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::agent::test {

using namespace protocol;  // NOLINT(google-build-using-namespace): tests of the protocol's one other speaker

using Clock = std::chrono::steady_clock;

// Long enough for a loaded machine; only a defect waits for it.
inline Clock::time_point patience() { return Clock::now() + std::chrono::seconds(120); }
inline int left_of(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<long long>(left, 0));
}
inline bool wait_ready(int fd, short events, Clock::time_point deadline = patience()) {
  pollfd waiting{fd, events, 0};
  return ::poll(&waiting, 1, left_of(deadline)) > 0;
}

// Until the condition holds, looked at again and again; for what sends no event.
template <typename Holds>
bool eventually(Holds holds) {
  const auto deadline = patience();
  while (!holds()) {
    if (Clock::now() > deadline) return false;
    ::sched_yield();
  }
  return true;
}

inline bool lives(pid_t pid) { return ::kill(pid, 0) == 0; }

inline std::string text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};  // bytes as characters
}

struct Frame {
  Header header;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};

// A session, as a host has it.
class Host {
 public:
  explicit Host(UniqueFd socket, FrameLink::Kind kind = FrameLink::Kind::kPackets) : link_(std::move(socket), kind) {}

  void greet(std::uint16_t version = kVersion) { send(Type::kHello, 0, 0, encode(Hello{.version = version})); }
  void send(Type type, std::uint32_t channel, std::uint32_t request = 0, Bytes payload = {},
            std::span<const int> descriptors = {}) {
    const Header header{.type = type, .channel = channel, .request = request};
    sent_ok_ =
        link_.is_stream() ? send_stream(header, payload) : send_message(link_.get(), header, payload, descriptors).ok();
  }
  // Bytes as they are, as one packet.
  void send_raw(Bytes packet) { sent_ok_ = ::send(link_.get(), packet.data(), packet.size(), MSG_NOSIGNAL) >= 0; }
  bool sent_ok() const { return sent_ok_; }

  // The first frame of that type and channel that has not been asked for yet; what else comes is kept.
  Frame expect(Type type, std::uint32_t channel = 0) {
    std::size_t seen = 0;
    const auto deadline = patience();
    while (true) {
      for (; seen < kept_.size(); ++seen) {
        if (kept_[seen].header.type != type || kept_[seen].header.channel != channel) continue;
        Frame found = std::move(kept_[seen]);
        kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(seen));
        return found;
      }
      if (!receive(deadline)) {
        FAIL("no frame of type " << static_cast<int>(type) << " on channel " << channel << " came, but " << kept_.size()
                                 << " others");
      }
    }
  }
  // The next frame of that channel, whatever it is.
  Frame next(std::uint32_t channel) {
    const auto deadline = patience();
    while (true) {
      for (auto frame = kept_.begin(); frame != kept_.end(); ++frame) {
        if (frame->header.channel != channel) continue;
        Frame found = std::move(*frame);
        kept_.erase(frame);
        return found;
      }
      if (!receive(deadline)) FAIL("nothing came on channel " << channel);
    }
  }
  // Answered at once: whatever was said before has been done, and its answers are here.
  void ping() {
    send(Type::kPing, 0, ++pings_);
    CHECK(expect(Type::kPong).header.request == pings_);
  }
  bool has(Type type, std::uint32_t channel) const {
    for (const Frame& frame : kept_) {
      if (frame.header.type == type && frame.header.channel == channel) return true;
    }
    return false;
  }
  // The agent has closed the session.
  bool hung_up() {
    const auto deadline = patience();
    while (receive(deadline)) {
    }
    return closed_;
  }
  int fd() const { return link_.get(); }
  void close() { link_.reset(); }

 private:
  bool receive(Clock::time_point deadline) {
    std::vector<std::byte> buffer(kMaxPayload);
    auto received = receive_frame(buffer, deadline);
    if (!received) return false;
    if (!received->ok()) {
      INFO("while receiving: ", received->error().message);
      REQUIRE(received->error().code == ErrorCode::kClosed);
      closed_ = true;
      return false;
    }
    buffer.resize((*received)->length);
    kept_.push_back({(*received)->header, std::move(buffer), std::move((*received)->descriptors)});
    return true;
  }
  // Nothing: the deadline came first.
  std::optional<Result<Received>> receive_frame(MutableBytes buffer, Clock::time_point deadline) {
    while (!closed_ && (link_.buffered() || wait_ready(link_.get(), POLLIN, deadline))) {
      auto received = link_.receive(buffer);
      // A stream's frame that has come in part.
      if (received.ok() || received.error().os_error != EAGAIN) return received;
    }
    return std::nullopt;
  }
  bool send_stream(const Header& header, Bytes payload) {
    Status sent = link_.send(header, payload);
    while (!sent.ok() && sent.error().os_error == EAGAIN && wait_ready(link_.get(), POLLOUT))
      sent = link_.send(header, payload);
    while (sent.ok() && link_.unsent() && wait_ready(link_.get(), POLLOUT)) {
      const Status flushed = link_.flush();
      if (!flushed.ok() && flushed.error().os_error != EAGAIN) sent = flushed;
    }
    return sent.ok();
  }

  FrameLink link_;
  std::deque<Frame> kept_;
  std::uint32_t pings_ = 0;
  bool sent_ok_ = true;
  bool closed_ = false;
};

// The agent's process, and the link to it.
class AgentProcess {
 public:
  // `before`: a program and its arguments that run the agent.
  explicit AgentProcess(std::vector<std::string> before = {}) {
    auto pair = packet_pair();
    REQUIRE(pair.ok());
    link_ = std::move(pair.value().first);
    before.emplace_back(SLUICEBOX_AGENT);
    std::vector<char*> argv;
    for (std::string& word : before) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, pair.value().second.get(), 3);
    char* env[] = {nullptr};
    REQUIRE(::posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), env) == 0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  AgentProcess(const AgentProcess&) = delete;
  AgentProcess& operator=(const AgentProcess&) = delete;
  ~AgentProcess() {
    link_.reset();
    if (pid_ > 0) status();
  }

  pid_t pid() const { return pid_; }
  Host begin(bool leash = false) {
    auto pair = packet_pair();
    REQUIRE(pair.ok());
    const int theirs = pair.value().second.get();
    const Header header{.type = Type::kSession};
    REQUIRE(send_message(link_.get(), header, encode(Hello{.version = kVersion, .leash = leash}), std::span(&theirs, 1))
                .ok());
    return Host(std::move(pair.value().first));
  }
  // Greeted by both.
  Host session(bool leash = false) {
    Host host = begin(leash);
    host.greet();
    CHECK(decode_hello(host.expect(Type::kHello).payload).value().version == kVersion);
    return host;
  }
  void shut_down(std::uint64_t grace_ms) {
    const Header header{.type = Type::kShutdown};
    REQUIRE(send_message(link_.get(), header, encode(Stop{.grace_ms = grace_ms})).ok());
  }
  void hang_up() { link_.reset(); }
  // Of its end, as waitpid gives it.
  int status() {
    int status = -1;
    if (!eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, &status, 0);
      FAIL_CHECK("the agent did not end");
    }
    pid_ = -1;
    return status;
  }

 private:
  UniqueFd link_;
  pid_t pid_ = -1;
};

// The tests' own user: another needs rights that an ordinary user does not have.
inline User myself() {
  if (::geteuid() == 0) return {};
  return {.kind = User::Kind::kIds, .name = {}, .uid = ::geteuid(), .gid = ::getegid()};
}

inline Spawn command(std::vector<std::string> argv) {
  Spawn spawn;
  spawn.argv = std::move(argv);
  spawn.env = {"PATH=/usr/local/bin:/usr/bin:/bin"};
  spawn.cwd = "/";
  spawn.user = myself();
  spawn.window = 1 << 20;
  return spawn;
}
inline Spawn shell(std::string script) { return command({"sh", "-c", std::move(script)}); }
inline Spawn framed(Spawn spawn, bool input = true) {
  if (input) spawn.in = Stdio::kFramed;
  spawn.out = spawn.err = Stdio::kFramed;
  return spawn;
}
inline Spawn on_terminal(Spawn spawn, Stdio kind) {
  spawn.tty = true;
  spawn.in = spawn.out = kind;
  spawn.err = Stdio::kStdout;
  return spawn;
}

inline void start(Host& host, std::uint32_t channel, const Spawn& spawn, std::span<const int> descriptors = {}) {
  host.send(Type::kSpawn, channel, 1000 + channel, encode(spawn), descriptors);
}
inline Frame started(Host& host, std::uint32_t channel) {
  Frame answer = host.next(channel);
  CHECK(answer.header.type == Type::kSpawned);
  CHECK(answer.header.request == 1000 + channel);
  return answer;
}
inline pid_t pid_of(const Frame& spawned) { return static_cast<pid_t>(decode_spawned(spawned.payload).value().pid); }
inline SpawnFailed failure(Host& host, std::uint32_t channel, const Spawn& spawn) {
  start(host, channel, spawn);
  const Frame answer = host.next(channel);
  REQUIRE(answer.header.type == Type::kSpawnFailed);
  return decode_spawn_failed(answer.payload).value();
}
inline Exited exit_of(Host& host, std::uint32_t channel) {
  return decode_exited(host.expect(Type::kExited, channel).payload).value();
}
inline void feed(Host& host, std::uint32_t channel, std::string_view text) {
  std::vector<std::byte> payload{static_cast<std::byte>(Stream::kStdin)};
  const Bytes bytes = as_bytes(text);
  payload.insert(payload.end(), bytes.begin(), bytes.end());
  host.send(Type::kInput, channel, 0, payload);
}
inline void give(Host& host, std::uint32_t channel, Stream stream, std::uint32_t bytes) {
  host.send(Type::kCredit, channel, 0, encode(Credit{stream, bytes}));
}
inline Killed kill(Host& host, std::uint32_t channel, const Kill& request) {
  host.send(Type::kKill, channel, 7, encode(request));
  const Frame answer = host.expect(Type::kKilled, channel);
  CHECK(answer.header.request == 7);
  return decode_killed(answer.payload).value();
}

// All that a framed execution said, up to its end and that of its streams.
struct Outcome {
  Exited exited;
  std::string out;
  std::string err;
  bool input_closed = false;
  std::size_t largest_unasked = 0;  // bytes beyond the credit given
};
// `window` is given again as it is used up; `input` is sent as the agent asks for it, then its end.
inline Outcome follow(Host& host, std::uint32_t channel, const Spawn& spawn, std::string_view input = {},
                      bool end_input = true) {
  Outcome outcome;
  std::uint64_t credit[3] = {0, spawn.window, spawn.window};
  std::uint64_t wanted = 0;
  bool fed = spawn.in != Stdio::kFramed;
  bool exited = false;
  int open = (spawn.out == Stdio::kFramed ? 1 : 0) + (spawn.err == Stdio::kFramed ? 1 : 0);
  while (!exited || open > 0) {
    const Frame frame = host.next(channel);
    switch (frame.header.type) {
      case Type::kOutput: {
        const Data data = decode_data(frame.payload).value();
        const auto number = static_cast<std::size_t>(data.stream);
        (data.stream == Stream::kStdout ? outcome.out : outcome.err) += text_of(data.bytes);
        if (data.bytes.size() > credit[number]) outcome.largest_unasked = data.bytes.size() - credit[number];
        credit[number] -= std::min<std::uint64_t>(credit[number], data.bytes.size());
        if (credit[number] == 0) {
          credit[number] = spawn.window;
          give(host, channel, data.stream, spawn.window);
        }
        break;
      }
      case Type::kCredit:
        wanted += decode_credit(frame.payload).value().bytes;
        break;
      case Type::kOutputEnd:
        --open;
        break;
      case Type::kInputClosed:
        outcome.input_closed = true;
        fed = true;
        break;
      case Type::kExited:
        outcome.exited = decode_exited(frame.payload).value();
        exited = true;
        break;
      default:
        FAIL("a frame of type " << static_cast<int>(frame.header.type) << " came");
    }
    while (!fed && wanted > 0 && !input.empty()) {
      const std::size_t count = static_cast<std::size_t>(
          std::min({static_cast<std::uint64_t>(input.size()), wanted, static_cast<std::uint64_t>(kMaxData)}));
      feed(host, channel, input.substr(0, count));
      input.remove_prefix(count);
      wanted -= count;
    }
    if (!fed && input.empty() && end_input) {
      host.send(Type::kInputEnd, channel);
      fed = true;
    }
  }
  return outcome;
}
inline Outcome run(Host& host, std::uint32_t channel, const Spawn& spawn, std::string_view input = {}) {
  start(host, channel, spawn);
  started(host, channel);
  return follow(host, channel, spawn, input);
}
// The output of a script with nothing on stdin, which must end well.
inline std::string output_of(Host& host, std::uint32_t channel, std::string script) {
  const Outcome outcome = run(host, channel, framed(shell(std::move(script)), false));
  CHECK_MESSAGE(outcome.exited.code == 0, outcome.err);
  return outcome.out;
}

// Until `text` has come on that stream; what was read so far.
inline std::string read_until(Host& host, std::uint32_t channel, std::string_view text) {
  std::string all;
  while (all.find(text) == std::string::npos) {
    const Frame frame = host.expect(Type::kOutput, channel);
    all += text_of(decode_data(frame.payload).value().bytes);
    give(host, channel, decode_data(frame.payload).value().stream, static_cast<std::uint32_t>(frame.payload.size()));
  }
  return all;
}

// A pipe of the tests: what is in it, up to its end.
inline std::string read_all(int fd) {
  std::string all;
  char chunk[65536];
  const auto deadline = patience();
  while (wait_ready(fd, POLLIN, deadline)) {
    const ssize_t got = ::read(fd, chunk, sizeof chunk);
    if (got < 0 && errno == EAGAIN) continue;
    if (got <= 0) return all;
    all.append(chunk, static_cast<std::size_t>(got));
  }
  FAIL("the end did not come after " << all.size() << " bytes");
  return all;
}
struct Pipe {
  UniqueFd read;
  UniqueFd write;
};
inline Pipe make_pipe() {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Bytes that look like noise and are the same in every run.
inline std::string noise(std::size_t size) {
  std::string bytes(size, '\0');
  std::uint64_t state = 0x9e3779b97f4a7c15;
  for (char& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<char>(state);
  }
  return bytes;
}

}  // namespace sluicebox::agent::test

// box_fixture.h: a keeper of the build under test with the probe as PID 1, over the very sockets that an owner has.
// Knows: the keeper's messages, the probe's commands. Threads: the test's.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/messages.h"
#include "protocol/packet_socket.h"

namespace sluicebox::test {

inline constexpr int kDeadlineMs = 120000;

// A home with a directory per box, gone with its owner.
class Home {
 public:
  Home();
  ~Home();
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;
  // A new box's directory; its name is the box's id.
  std::string make_box() const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Answer {
  bool launched = false;
  protocol::Launched ok;
  protocol::LaunchFailed failed;
};

struct Call {
  long result = 0;
  int error = 0;
  bool died = false;
};

class BoxUnderTest {
 public:
  explicit BoxUnderTest(const std::string& directory);
  ~BoxUnderTest();
  BoxUnderTest(const BoxUnderTest&) = delete;
  BoxUnderTest& operator=(const BoxUnderTest&) = delete;

  protocol::Launch order;
  std::string root;  // for Root::kDirectory
  std::string agent = SLUICEBOX_PROBE;
  std::optional<std::size_t> descriptors;  // how many to send instead of all
  int directory_flags;                     // of the box's directory

  // Starts the keeper, orders the box, waits for the answer; when launched, for the probe too.
  const Answer& launch();
  void start_keeper();
  // After start_keeper(): the box is begun ahead of its order.
  void prepare();
  void send_order();
  const Answer& await_answer();

  // In the box. `run`: the output; the exit status must be `expected`, -1 for any.
  std::string run(std::vector<std::string> argv, int expected = 0);
  std::string sh(const std::string& script, int expected = 0) { return run({"/bin/sh", "-c", script}, expected); }
  Call call(long number, const std::vector<std::string>& arguments = {});
  std::string ask(const std::string& packet);
  void tell(const std::string& packet);

  protocol::Ended stop(std::uint64_t grace_ms = 0);
  protocol::Ended await_end();
  void send_to_keeper(protocol::Type type, Bytes payload, std::span<const int> descriptors);
  protocol::Type await_word();
  void hang_up() { control_.reset(); }
  void kill_keeper();
  // The keeper's exit status; 1000 + signal.
  int await_keeper();

  pid_t keeper() const { return keeper_; }
  pid_t pid1() const { return static_cast<pid_t>(answer_.ok.pid); }
  const Answer& answer() const { return answer_; }
  std::string proc(const std::string& name) const;  // a file of PID 1's, as the host sees it
  UniqueFd open_pid1() const;                       // a pidfd

 private:
  protocol::Header receive(std::vector<std::byte>& payload);

  std::string directory_;
  UniqueFd control_;
  UniqueFd session_;
  UniqueFd agent_session_;
  pid_t keeper_ = -1;
  Answer answer_;
};

bool as_root();
std::string read_text(const std::string& path);
bool exists(const std::string& path);
// Waits for a descriptor; false when the deadline passed.
bool await(int fd, short events, int deadline_ms = kDeadlineMs);
// What this host has of boxes: processes of keepers' namespaces, cgroups, mounts of this process.
std::vector<std::string> cgroups_named(const std::string& part);

}  // namespace sluicebox::test

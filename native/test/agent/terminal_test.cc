#include <sys/ioctl.h>

#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

namespace {

constexpr const char* kIsTerminal = "test -t 0 && test -t 1 && test -t 2 && echo all three > /dev/tty";

// A terminal's master, until it hangs up.
std::string read_master(int master) {
  std::string all;
  char chunk[4096];
  const auto deadline = patience();
  while (wait_ready(master, POLLIN, deadline)) {
    const ssize_t got = ::read(master, chunk, sizeof chunk);
    if (got < 0 && errno == EAGAIN) continue;
    if (got <= 0) return all;  // EIO
    all.append(chunk, static_cast<std::size_t>(got));
  }
  FAIL("the terminal did not hang up");
  return all;
}
std::string read_master_until(int master, std::string_view text) {
  std::string all;
  char chunk[4096];
  const auto deadline = patience();
  while (all.find(text) == std::string::npos) {
    REQUIRE_MESSAGE(wait_ready(master, POLLIN, deadline), all);
    const ssize_t got = ::read(master, chunk, sizeof chunk);
    if (got < 0 && errno == EAGAIN) continue;
    REQUIRE_MESSAGE(got > 0, all);
    all.append(chunk, static_cast<std::size_t>(got));
  }
  return all;
}

std::uint32_t resized(Host& host, std::uint32_t channel, std::uint32_t cols, std::uint32_t rows) {
  host.send(Type::kResize, channel, 9, encode(Resize{.cols = cols, .rows = rows}));
  return decode_resized(host.expect(Type::kResized, channel).payload).value().os_error;
}

}  // namespace

TEST_SUITE("agent terminals") {
  TEST_CASE("X9 on a terminal all three are it, framed or passed") {
    AgentProcess agent;
    Host host = agent.session();
    CHECK(run(host, 1, on_terminal(shell(kIsTerminal), Stdio::kFramed)).out == "all three\r\n");
    start(host, 2, on_terminal(shell(kIsTerminal), Stdio::kPassed));
    const Frame answer = started(host, 2);
    REQUIRE(answer.descriptors.size() == 1);
    CHECK(read_master(answer.descriptors[0].get()) == "all three\r\n");
    CHECK(exit_of(host, 2).code == 0);
    // X8 without one none is.
    CHECK(run(host, 3, framed(shell("test -t 0 || test -t 1 || test -t 2; echo $?"))).out == "1\n");
  }

  TEST_CASE("X14 the size is there before the first instruction, and a new one sends SIGWINCH") {
    AgentProcess agent;
    Host host = agent.session();
    const std::string script = "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    for (const Stdio kind : {Stdio::kFramed, Stdio::kPassed}) {
      const std::uint32_t channel = kind == Stdio::kFramed ? 1 : 2;
      Spawn spawn = on_terminal(shell(script), kind);
      spawn.cols = 123;
      spawn.rows = 45;
      start(host, channel, spawn);
      const Frame answer = started(host, channel);
      std::string seen;
      if (kind == Stdio::kFramed) {
        seen = read_until(host, channel, "ready");
        CHECK(resized(host, channel, 200, 50) == 0);
        seen += follow(host, channel, spawn, {}, false).out;
      } else {
        seen = read_master_until(answer.descriptors[0].get(), "ready");
        CHECK(resized(host, channel, 200, 50) == 0);
        seen += read_master(answer.descriptors[0].get());
        CHECK(exit_of(host, channel).code == 0);
      }
      CHECK(seen == "45 123\r\nready\r\n50 200\r\n");
    }
  }

  TEST_CASE("X15 what has no terminal, or has ended, is not resized") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, framed(command({"cat"})));
    started(host, 1);
    CHECK(resized(host, 1, 80, 24) == ENOTTY);
    run(host, 2, on_terminal(command({"true"}), Stdio::kFramed));
    CHECK(resized(host, 2, 80, 24) == ESRCH);
    CHECK(resized(host, 99, 80, 24) == ESRCH);
  }

  TEST_CASE("X12 the end of input on a terminal is its end-of-file character") {
    AgentProcess agent;
    Host host = agent.session();
    const Outcome outcome = run(host, 1, on_terminal(shell("stty -echo; cat"), Stdio::kFramed), "line\n");
    CHECK(outcome.exited.code == 0);
    CHECK(outcome.out.find("line\r\n") != std::string::npos);
  }

  TEST_CASE("X11 a control character signals the foreground group") {
    AgentProcess agent;
    Host host = agent.session();
    const Spawn spawn =
        on_terminal(shell("trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.01; done"), Stdio::kFramed);
    start(host, 1, spawn);
    started(host, 1);
    read_until(host, 1, "ready");
    feed(host, 1, "\x03");
    const Outcome outcome = follow(host, 1, spawn, {}, false);
    CHECK(outcome.out.find("caught") != std::string::npos);
    CHECK(outcome.exited.code == 3);
  }

  TEST_CASE("X16 a host that closes a terminal hangs it up") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, on_terminal(shell("echo ready; while :; do sleep 100; done"), Stdio::kPassed));
    Frame answer = started(host, 1);
    read_master_until(answer.descriptors[0].get(), "ready");
    CHECK(resized(host, 1, 90, 30) == 0);  // leaves no copy of the terminal open
    answer.descriptors.clear();
    const Exited exited = exit_of(host, 1);
    CHECK(exited.signaled);
    CHECK(exited.code == SIGHUP);
  }

  TEST_CASE("X28 a terminal's last output comes whole, without credit before the end") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn =
        on_terminal(shell("stty -opost; i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done"), Stdio::kFramed);
    spawn.window = 1;
    std::string expected;
    for (int i = 0; i < 300; ++i) expected += std::to_string(i) + "\n";
    start(host, 1, spawn);
    started(host, 1);
    const Exited exited = exit_of(host, 1);
    CHECK(exited.own_stdout == expected.size());
    give(host, 1, Stream::kStdout, 1 << 20);
    std::string got;
    while (true) {
      const Frame frame = host.next(1);
      if (frame.header.type == Type::kOutputEnd) break;
      if (frame.header.type == Type::kOutput) got += text_of(decode_data(frame.payload).value().bytes);
    }
    CHECK(got == expected);
  }
}

}  // namespace sluicebox::agent::test

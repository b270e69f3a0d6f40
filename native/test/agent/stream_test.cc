#include <sys/ioctl.h>

#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

TEST_SUITE("agent streams") {
  TEST_CASE("X28 passed pipes carry every byte as it is") {
    AgentProcess agent;
    Host host = agent.session();
    const std::string sent = noise(8 << 20);
    Pipe in = make_pipe();
    Pipe out = make_pipe();
    Pipe err = make_pipe();
    Spawn spawn = shell("tee /dev/fd/2");
    spawn.in = spawn.out = spawn.err = Stdio::kPassed;
    const int passed[] = {in.read.get(), out.write.get(), err.write.get()};
    start(host, 1, spawn, passed);
    started(host, 1);
    for (UniqueFd* theirs : {&in.read, &out.write, &err.write}) theirs->reset();
    for (int fd : {in.write.get(), out.read.get(), err.read.get()}) ::fcntl(fd, F_SETFL, O_NONBLOCK);
    std::string got[2];
    std::string_view left = sent;
    pollfd ready[3] = {{in.write.get(), POLLOUT, 0}, {out.read.get(), POLLIN, 0}, {err.read.get(), POLLIN, 0}};
    const auto deadline = patience();
    std::vector<char> chunk(1 << 16);
    while (ready[1].fd >= 0 || ready[2].fd >= 0) {
      REQUIRE(::poll(ready, 3, left_of(deadline)) > 0);
      if ((ready[0].revents & POLLOUT) != 0) {
        const ssize_t written = ::write(in.write.get(), left.data(), left.size());
        if (written > 0) left.remove_prefix(static_cast<std::size_t>(written));
        if (left.empty()) {
          in.write.reset();
          ready[0].fd = -1;
        }
      }
      for (std::size_t i = 0; i < 2; ++i) {
        if (ready[i + 1].revents == 0) continue;
        const ssize_t count = ::read(ready[i + 1].fd, chunk.data(), chunk.size());
        if (count > 0) got[i].append(chunk.data(), static_cast<std::size_t>(count));
        if (count == 0) ready[i + 1].fd = -1;  // the agent holds no copy, else this end never came
      }
    }
    CHECK((got[0] == sent));
    CHECK((got[1] == sent));
    CHECK(exit_of(host, 1).code == 0);
  }

  TEST_CASE("X28 framed streams carry every byte, within tiny credit") {
    AgentProcess agent;
    Host host = agent.session();
    std::uint32_t channel = 0;
    for (const std::uint32_t window : {1U, 7U, 4096U, 1000000U}) {
      const std::string sent = noise(window == 1 ? 3000 : window == 7 ? 30000 : 3 << 20);
      Spawn spawn = framed(command({"cat"}));
      spawn.window = window;
      const Outcome outcome = run(host, ++channel, spawn, sent);
      CHECK(outcome.exited.code == 0);
      CHECK((outcome.out == sent));
      CHECK(outcome.err.empty());
      CHECK(outcome.largest_unasked == 0);
      CHECK_FALSE(outcome.input_closed);
      CHECK(outcome.exited.own_stdout == sent.size());
      CHECK(outcome.exited.own_stderr == 0);
    }
  }

  TEST_CASE("X29 without credit nothing is sent, and the process waits") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = framed(shell("yes | head -c 1000000; echo done >&2"), false);
    spawn.window = 10;
    start(host, 1, spawn);
    started(host, 1);
    CHECK(decode_data(host.expect(Type::kOutput, 1).payload).value().bytes.size() == 10);
    CHECK(output_of(host, 2, "echo others run on") == "others run on\n");
    host.ping();
    CHECK_FALSE(host.has(Type::kOutput, 1));
    CHECK_FALSE(host.has(Type::kExited, 1));
    // X30 killing it takes effect at once.
    CHECK(kill(host, 1, {.signal = SIGKILL}).delivered);
    const Exited exited = exit_of(host, 1);
    CHECK(exited.signaled);
    CHECK(exited.own_stdout > 10);
    // What the pipe held is still to be had, to the last byte, and then the end.
    give(host, 1, Stream::kStdout, 1 << 20);
    std::uint64_t got = 10;
    while (true) {
      const Frame frame = host.next(1);
      if (frame.header.type == Type::kOutputEnd && decode_of_stream(frame.payload).value().stream == Stream::kStdout)
        break;
      if (frame.header.type == Type::kOutput) got += frame.payload.size() - 1;
    }
    CHECK(got == exited.own_stdout);
  }

  TEST_CASE("X29 the end of a stream is seen without credit for more") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = framed(shell("printf 1234; exec >&- 2>&-; read line"));
    spawn.window = 4;
    start(host, 1, spawn);
    started(host, 1);
    // X37 the stream ends, the process runs on.
    host.expect(Type::kOutputEnd, 1);
    host.expect(Type::kOutputEnd, 1);
    host.ping();
    CHECK_FALSE(host.has(Type::kExited, 1));
    host.send(Type::kInputEnd, 1);
    CHECK(exit_of(host, 1).own_stdout == 4);
  }

  TEST_CASE("X29 a discarded stream is drained, and says nothing but its end") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = framed(shell("head -c 3000000 /dev/zero; read line; head -c 3000000 /dev/zero"));
    spawn.window = 100;
    start(host, 1, spawn);
    started(host, 1);
    host.expect(Type::kOutput, 1);
    host.send(Type::kDiscard, 1, 0, encode(OfStream{Stream::kStdout}));
    feed(host, 1, "go\n");
    CHECK(exit_of(host, 1).code == 0);
    host.expect(Type::kOutputEnd, 1);
    host.expect(Type::kOutputEnd, 1);
    CHECK_FALSE(host.has(Type::kOutput, 1));
  }

  TEST_CASE("X5 a process that closes stdin is told to the host, at once") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, framed(shell("exec <&-; echo closed; while :; do sleep 100; done")));
    started(host, 1);
    host.expect(Type::kInputClosed, 1);
    feed(host, 1, "for nobody");
    host.send(Type::kInputEnd, 1);
    host.ping();
    kill(host, 1, {.signal = SIGKILL});
    exit_of(host, 1);
    CHECK_FALSE(host.has(Type::kInputClosed, 1));
    const Outcome outcome = run(host, 2, framed(command({"head", "-c1"})), noise(1 << 20));
    CHECK(outcome.exited.code == 0);
    CHECK(outcome.out.size() == 1);
    CHECK(outcome.input_closed);
    // One that ends with its stdin open.
    CHECK(
        follow(host, (start(host, 3, framed(command({"true"}))), started(host, 3), 3), framed(command({""})), "", false)
            .input_closed);
  }

  TEST_CASE("X6 the end of stdin is a half-close") {
    AgentProcess agent;
    Host host = agent.session();
    CHECK(run(host, 1, framed(command({"sort"})), "b\na\n").out == "a\nb\n");
    CHECK(run(host, 2, framed(command({"cat"}))).out.empty());
  }

  TEST_CASE("X3 stdin is granted as it is read, not before") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, framed(command({"sleep", "1000"})));
    started(host, 1);
    std::uint64_t granted = 0;
    std::uint64_t sent = 0;
    // The window, and what its pipe takes; then no more.
    while (granted < 65536 * 2) {
      granted += decode_credit(host.expect(Type::kCredit, 1).payload).value().bytes;
      for (; sent < granted; sent += 8192) feed(host, 1, std::string(8192, 'x'));
    }
    host.ping();
    while (host.has(Type::kCredit, 1)) granted += decode_credit(host.expect(Type::kCredit, 1).payload).value().bytes;
    CHECK(granted <= 3 * 65536);
    kill(host, 1, {.signal = SIGKILL});
    exit_of(host, 1);
  }

  TEST_CASE("X36 an orphan that holds the pipes holds nothing back") {
    AgentProcess agent;
    Host host = agent.session();
    Pipe go = make_pipe();
    Pipe told = make_pipe();
    Spawn spawn =
        framed(shell("(trap '' HUP; read line <&3; for i in 1 2 3; do head -c 100000 /dev/zero || exit; done; "
                     "echo alive >&4) & echo own; exit 5"),
               false);
    // The orphan's own two pipes travel as stdin and stderr of the shell.
    spawn.argv = {"sh", "-c",
                  "exec 3<&0 4>&2; (read line <&3; head -c 300000 /dev/zero && echo alive >&4) <&3 & echo own; exit 5"};
    spawn.in = spawn.err = Stdio::kPassed;
    const int passed[] = {go.read.get(), told.write.get()};
    start(host, 1, spawn, passed);
    started(host, 1);
    go.read.reset();
    told.write.reset();
    const Outcome outcome = follow(host, 1, spawn);
    CHECK(outcome.exited.code == 5);
    CHECK(outcome.out == "own\n");
    CHECK(outcome.exited.own_stdout == 4);
    // More than the pipe holds: somebody must be reading, and no SIGPIPE comes.
    REQUIRE(::write(go.write.get(), "go\n", 3) == 3);
    CHECK(read_all(told.read.get()) == "alive\n");
    host.ping();
    CHECK_FALSE(host.has(Type::kOutput, 1));
    CHECK_FALSE(host.has(Type::kOutputEnd, 1));
  }

  TEST_CASE("X7 much both ways at once does not stop") {
    AgentProcess agent;
    Host host = agent.session();
    const std::string sent = noise(16 << 20);
    Spawn spawn = framed(command({"cat"}));
    spawn.window = 1 << 20;
    CHECK((run(host, 1, spawn, sent).out == sent));
  }

  TEST_CASE("S16 a host that reads late is waited for, however much credit it gave") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = framed(shell("head -c 8000000 /dev/zero; echo end >&2"), false);
    spawn.window = 1U << 30;
    for (std::uint32_t channel = 1; channel <= 4; ++channel) start(host, channel, spawn);
    // Nothing is read until the socket is full: with four times 8 MB that it must become.
    Host other = agent.session();
    for (int i = 0; i < 50; ++i) other.ping();
    for (std::uint32_t channel = 1; channel <= 4; ++channel) {
      started(host, channel);
      const Outcome outcome = follow(host, channel, spawn);
      CHECK(outcome.out.size() == 8000000);
      CHECK(outcome.err == "end\n");
    }
  }
}

}  // namespace sluicebox::agent::test

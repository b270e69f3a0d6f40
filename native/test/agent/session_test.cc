#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

namespace {

std::vector<std::byte> packet(Type type, std::uint32_t channel, Bytes payload, std::uint32_t claimed,
                              bool more = false) {
  const Header header{.length = claimed, .type = type, .more = more, .channel = channel};
  const auto head = encode(header);
  std::vector<std::byte> bytes(head.begin(), head.end());
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

}  // namespace

TEST_SUITE("agent sessions") {
  TEST_CASE("B2 the agent greets first, and answers a ping") {
    AgentProcess agent;
    Host host = agent.begin();
    CHECK(decode_hello(host.expect(Type::kHello).payload).value().version == kVersion);
    host.greet();
    host.ping();
  }

  TEST_CASE("S15 another version, or anything before the greeting, closes the session") {
    AgentProcess agent;
    Host newer = agent.begin();
    newer.greet(kVersion + 1);
    CHECK(newer.hung_up());
    Host rude = agent.begin();
    rude.send(Type::kPing, 0, 1);
    CHECK(rude.hung_up());
    agent.session().ping();
  }

  TEST_CASE("X54 a ping is answered while much is going on") {
    AgentProcess agent;
    Host busy = agent.session();
    Host host = agent.session();
    for (std::uint32_t channel = 1; channel <= 20; ++channel) {
      Spawn spawn = framed(command({"yes"}), false);
      spawn.window = 65536;
      start(busy, channel, spawn);
      start(host, channel, spawn);
    }
    for (std::uint32_t channel = 1; channel <= 20; ++channel)
      busy.send(Type::kDiscard, channel, 0, encode(OfStream{Stream::kStdout}));
    for (int i = 0; i < 100; ++i) host.ping();
  }

  TEST_CASE("S15 hostile frames close their own session and no other") {
    AgentProcess agent;
    Host good = agent.session(true);
    start(good, 1, framed(command({"cat"})));
    started(good, 1);
    std::vector<std::byte> junk(40);
    for (std::byte& byte : junk) byte = std::byte{0xff};
    const Encoded spawn = encode(command({"sleep", "1000"}));
    const Encoded small(3);
    std::vector<std::vector<std::byte>> packets = {
        {junk.begin(), junk.begin() + 3},                                          // shorter than a header
        junk,                                                                      // no known type
        packet(Type::kPing, 0, {}, 100),                                           // a length that is not there
        packet(Type::kPing, 0, small, 3),                                          // a ping that says something
        packet(Type::kPong, 0, {}, 0),                                             // what only the agent says
        packet(Type::kLaunch, 0, {}, 0),                                           // what is not said here
        packet(Type::kShutdown, 0, encode(Stop{}), 8),                             //
        packet(Type::kSession, 0, encode(Hello{kVersion}), 5),                     //
        packet(Type::kSpawn, 1, small, 3),                                         // malformed
        packet(Type::kSpawn, 0, spawn, static_cast<std::uint32_t>(spawn.size())),  // the session's own channel
        packet(Type::kKill, 1, small, 3),
        packet(Type::kResize, 1, small, 3),
        packet(Type::kInput, 1, {}, 0),
        packet(Type::kInputEnd, 1, small, 3),
        packet(Type::kDiscard, 1, small, 3),
        packet(Type::kCredit, 1, small, 3),
        packet(Type::kCredit, 1, encode(Credit{Stream::kStdin, 1}), 5),  // the agent's to give
        packet(Type::kPing, 0, {}, 0, true),                             // an empty fragment
    };
    for (std::size_t i = 0; i < packets.size(); ++i) {
      INFO("packet ", i);
      Host bad = agent.session();
      bad.send_raw(packets[i]);
      CHECK(bad.hung_up());
    }
    Host bad = agent.session();
    bad.send_raw(packet(Type::kSpawn, 1, small, 3, true));
    bad.send_raw(packet(Type::kPing, 0, {}, 0));  // a message within another
    CHECK(bad.hung_up());
    CHECK(follow(good, 1, framed(command({"cat"})), "still here").out == "still here");
  }

  TEST_CASE("S15 more input than was granted, a channel used twice, wrong descriptors close the session") {
    AgentProcess agent;
    Host good = agent.session(true);
    Host flood = agent.session();
    start(flood, 1, framed(command({"sleep", "1000"})));
    started(flood, 1);
    for (int i = 0; i < 20 && flood.sent_ok(); ++i) feed(flood, 1, std::string(32000, 'x'));
    CHECK(flood.hung_up());

    Host twice = agent.session();
    start(twice, 1, command({"sleep", "1000"}));
    started(twice, 1);
    start(twice, 1, command({"sleep", "1000"}));
    CHECK(twice.hung_up());

    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int passed[] = {null.get(), null.get()};
    Spawn spawn = command({"true"});
    spawn.in = Stdio::kPassed;
    for (const std::size_t count : {0U, 2U}) {
      Host wrong = agent.session();
      start(wrong, 1, spawn, std::span(passed, count));
      CHECK(wrong.hung_up());
    }
    Host misplaced = agent.session();
    misplaced.send(Type::kPing, 0, 1, {}, std::span(passed, 1));
    CHECK(misplaced.hung_up());
    good.ping();
  }

  TEST_CASE("S16 a host that only asks and never listens is let go") {
    AgentProcess agent;
    Host good = agent.session(true);
    Host deaf = agent.session();
    // It waits for no answer: the agent's 4 MiB and its socket are full at some time.
    for (int i = 0; i < 2'000'000 && deaf.sent_ok(); ++i) deaf.send(Type::kPing, 0, 1);
    CHECK_FALSE(deaf.sent_ok());
    good.ping();
  }

  TEST_CASE("X52 a session that hangs up takes its own executions with it") {
    AgentProcess agent;
    Host good = agent.session();
    start(good, 1, framed(command({"cat"})));
    started(good, 1);
    Host gone = agent.session();
    start(gone, 1, framed(shell("sleep 1000 & echo $!; wait"), false));
    const pid_t leader = pid_of(started(gone, 1));
    const pid_t other = std::stoi(read_until(gone, 1, "\n"));
    gone.close();
    CHECK(eventually([&] { return !lives(leader) && !lives(other); }));
    CHECK(follow(good, 1, framed(command({"cat"})), "on").out == "on");
  }

  TEST_CASE("S22 the end of the leash, or of the link, ends the agent and its executions") {
    for (const bool by_link : {true, false}) {
      AgentProcess agent;
      Host leash = agent.session(true);
      Host other = agent.session();
      start(other, 1, command({"sleep", "1000"}));
      const pid_t pid = pid_of(started(other, 1));
      if (by_link) agent.hang_up();
      if (!by_link) leash.close();
      const int status = agent.status();
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == (by_link ? 1 : 0));
      CHECK(eventually([&] { return !lives(pid); }));
    }
  }

  TEST_CASE("X56 a shutdown gives every execution its end, gently and then by force") {
    const auto ends_well = [](AgentProcess& agent, Host& host) {
      CHECK(host.hung_up());
      const int status = agent.status();
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 0);
    };
    {
      AgentProcess agent;
      Host host = agent.session(true);
      start(host, 1, framed(shell("trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.01; done"), false));
      start(host, 2, framed(shell("trap '' TERM; echo ready; read line; exit 7")));
      read_until(host, 1, "ready");
      read_until(host, 2, "ready");
      agent.shut_down(60000);
      const Exited gentle = exit_of(host, 1);
      CHECK_FALSE(gentle.signaled);
      CHECK(gentle.code == 6);
      CHECK_FALSE(gentle.forced);
      start(host, 3, command({"true"}));
      const SpawnFailed refused = decode_spawn_failed(host.expect(Type::kSpawnFailed, 3).payload).value();
      CHECK(refused.os_error == ESHUTDOWN);
      // Until now the agent had to wait for this one.
      host.send(Type::kInputEnd, 2);
      const Exited late = exit_of(host, 2);
      CHECK(late.code == 7);
      CHECK_FALSE(late.forced);
      ends_well(agent, host);
    }
    AgentProcess agent;
    Host host = agent.session(true);
    start(host, 1, framed(shell("trap '' TERM; echo ready; while :; do sleep 1000; done"), false));
    read_until(host, 1, "ready");
    agent.shut_down(300);
    const Exited forced = exit_of(host, 1);
    CHECK(forced.code == SIGKILL);
    CHECK(forced.forced);
    ends_well(agent, host);
  }

  TEST_CASE("X56 a shutdown ends as soon as all have ended, and without grace at once") {
    for (const std::uint64_t grace : {std::uint64_t{3600000}, std::uint64_t{0}}) {
      AgentProcess agent;
      Host host = agent.session();
      start(host, 1, command({"sleep", "1000"}));
      started(host, 1);
      agent.shut_down(grace);
      const Exited exited = exit_of(host, 1);
      CHECK(exited.code == (grace == 0 ? SIGKILL : SIGTERM));
      CHECK_FALSE(exited.forced);
      CHECK(agent.status() == 0);
    }
  }
}

}  // namespace sluicebox::agent::test

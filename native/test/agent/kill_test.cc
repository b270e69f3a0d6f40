#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

namespace {

// Killing it gently is of no avail.
constexpr const char* kStubborn = "trap '' TERM; echo ready; while :; do sleep 1000; done";

std::string status_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  return {std::istreambuf_iterator<char>(file), {}};
}

// The children of a process that have ended and were not reaped.
int zombies_of(pid_t parent) {
  std::ifstream file("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children");
  int zombies = 0;
  for (pid_t child = 0; file >> child;) zombies += status_of(child).find("State:\tZ") != std::string::npos ? 1 : 0;
  return zombies;
}

}  // namespace

TEST_SUITE("agent kill") {
  TEST_CASE("X40 a kill reaches the group, or the process alone") {
    AgentProcess agent;
    Host host = agent.session();
    const Spawn spawn = framed(shell("sleep 1000 & echo $!; wait"), false);
    start(host, 1, spawn);
    started(host, 1);
    const pid_t first = std::stoi(read_until(host, 1, "\n"));
    CHECK(kill(host, 1, {.signal = SIGKILL}).delivered);
    exit_of(host, 1);
    CHECK(eventually([&] { return !lives(first); }));

    start(host, 2, spawn);
    started(host, 2);
    const pid_t second = std::stoi(read_until(host, 2, "\n"));
    CHECK(kill(host, 2, {.signal = SIGKILL, .scope = KillScope::kProcess}).delivered);
    exit_of(host, 2);
    CHECK(lives(second));
    ::kill(second, SIGKILL);
    CHECK(eventually([&] { return !lives(second); }));  // the agent reaped it
  }

  TEST_CASE("X42 a signal that reached nobody says so") {
    AgentProcess agent;
    Host host = agent.session();
    run(host, 1, command({"true"}));
    for (const std::uint32_t channel : {1U, 99U}) {
      const Killed killed = kill(host, channel, {.signal = SIGTERM});
      CHECK_FALSE(killed.delivered);
      CHECK(killed.os_error == ESRCH);
    }
    start(host, 2, command({"sleep", "1000"}));
    const Killed asked = kill(host, 2, {.signal = 0});
    CHECK(asked.delivered);
    CHECK(asked.os_error == 0);
    // Right behind the spawn, before its answer was read.
    start(host, 3, command({"sleep", "1000"}));
    CHECK(kill(host, 3, {.signal = SIGTERM}).delivered);
    CHECK(exit_of(host, 3).code == SIGTERM);
    kill(host, 2, {.signal = SIGKILL});
    CHECK(exit_of(host, 2).code == SIGKILL);
    CHECK_FALSE(kill(host, 2, {.signal = 0}).delivered);
  }

  TEST_CASE("X41 SIGKILL follows on a process that ignores the signal, and only then") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, framed(shell(kStubborn), false));
    started(host, 1);
    read_until(host, 1, "ready");
    CHECK(kill(host, 1, {.signal = SIGTERM, .scope = KillScope::kGroup, .force_after_ms = 20}).delivered);
    Exited exited = exit_of(host, 1);
    CHECK(exited.signaled);
    CHECK(exited.code == SIGKILL);
    CHECK(exited.forced);
    CHECK_FALSE(exited.timed_out);

    start(host, 2, framed(shell(kStubborn), false));
    started(host, 2);
    read_until(host, 2, "ready");
    kill(host, 2, {.signal = SIGTERM});
    CHECK(kill(host, 2, {.signal = 0}).delivered);
    kill(host, 2, {.signal = SIGKILL});
    CHECK_FALSE(exit_of(host, 2).forced);

    start(host, 3, command({"sleep", "1000"}));
    started(host, 3);
    kill(host, 3, {.signal = SIGTERM, .scope = KillScope::kGroup, .force_after_ms = 100000});
    exited = exit_of(host, 3);
    CHECK(exited.code == SIGTERM);
    CHECK_FALSE(exited.forced);
  }

  TEST_CASE("X43 a stopped process has not ended") {
    AgentProcess agent;
    Host host = agent.session();
    start(host, 1, framed(command({"cat"})));
    const pid_t pid = pid_of(started(host, 1));
    kill(host, 1, {.signal = SIGSTOP});
    CHECK(eventually([&] { return status_of(pid).find("State:\tT") != std::string::npos; }));
    host.ping();
    CHECK_FALSE(host.has(Type::kExited, 1));
    kill(host, 1, {.signal = SIGCONT});
    CHECK(follow(host, 1, framed(command({""})), "on\n").out == "on\n");
  }

  TEST_CASE("X44 a timeout ends the group, gently first if asked to") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = command({"sleep", "1000"});
    spawn.timeout_ms = 10;
    spawn.kill_signal = SIGINT;
    Exited exited = run(host, 1, spawn).exited;
    CHECK(exited.timed_out);
    CHECK_FALSE(exited.forced);
    CHECK(exited.code == SIGINT);
    CHECK(exited.duration_us >= 10000);

    // On a busy host the time may be over before the shell has set its trap: then with more of it.
    std::uint32_t channel = 1;
    spawn = shell("trap '' TERM; while :; do sleep 1000; done");
    spawn.grace_ms = 20;
    for (const std::uint64_t timeout_ms : {200, 2000, 20000}) {
      spawn.timeout_ms = timeout_ms;
      exited = run(host, ++channel, spawn).exited;
      if (exited.forced) break;
    }
    CHECK(exited.timed_out);
    CHECK(exited.forced);
    CHECK(exited.code == SIGKILL);

    spawn = framed(shell("trap 'echo told; exit 4' TERM; while :; do sleep 0.01; done"), false);
    spawn.grace_ms = -1;
    Outcome outcome;
    for (const std::uint64_t timeout_ms : {200, 2000, 20000}) {
      spawn.timeout_ms = timeout_ms;
      outcome = run(host, ++channel, spawn);
      if (outcome.out == "told\n") break;
    }
    CHECK(outcome.exited.timed_out);
    CHECK_FALSE(outcome.exited.signaled);
    CHECK(outcome.exited.code == 4);
    CHECK(outcome.out == "told\n");

    spawn = command({"true"});
    spawn.timeout_ms = ~std::uint64_t{0};
    CHECK_FALSE(run(host, ++channel, spawn).exited.timed_out);
  }

  TEST_CASE("X63 orphans leave no zombie") {
    AgentProcess agent;
    Host host = agent.session();
    for (std::uint32_t channel = 1; channel <= 200; ++channel)
      start(host, channel, shell("(sleep 0.0$((" + std::to_string(channel) + " % 5)) &) ; exit 0"));
    for (std::uint32_t channel = 1; channel <= 200; ++channel) CHECK(exit_of(host, channel).code == 0);
    CHECK(eventually([&] {
      std::ifstream file("/proc/" + std::to_string(agent.pid()) + "/task/" + std::to_string(agent.pid()) + "/children");
      pid_t child = 0;
      return !(file >> child);
    }));
    CHECK(zombies_of(agent.pid()) == 0);
  }

  TEST_CASE("S14 an execution cannot look into the agent") {
    AgentProcess agent;
    Host host = agent.session();
    CHECK(status_of(agent.pid()).size() > 0);
    struct stat of_agent{};
    REQUIRE(::stat(("/proc/" + std::to_string(agent.pid()) + "/fd").c_str(), &of_agent) == 0);
    CHECK(of_agent.st_uid == 0);  // not the agent's own user: it is not dumpable
    if (::geteuid() != 0)
      CHECK(run(host, 1, shell("ls /proc/$PPID/fd >/dev/null 2>&1 && exit 9; exit 0")).exited.code == 0);
    // What it starts is again an ordinary process.
    CHECK(output_of(host, 2, "cat /proc/self/fd/0; echo fine") == "fine\n");
  }
}

}  // namespace sluicebox::agent::test

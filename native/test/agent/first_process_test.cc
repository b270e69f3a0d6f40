#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

namespace {

// The agent as the first process of a pid namespace, and alone with one id: as an ordinary user's box has it.
std::vector<std::string> first_process() {
  return {"unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"};
}

bool possible() {
  int status = -1;
  pid_t pid = -1;
  std::vector<std::string> words = first_process();
  words.emplace_back("true");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  char* env[] = {nullptr};
  const bool can = ::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), env) == 0 &&
                   ::waitpid(pid, &status, 0) == pid && status == 0;
  if (!can) MESSAGE("skipped: this host allows no user namespace");
  return can;
}

Spawn as_root(Spawn spawn) {
  spawn.user = {};
  return spawn;
}

}  // namespace

TEST_SUITE("agent as first process") {
  TEST_CASE("S22 the first process of a box reaps, and a shutdown reaches whoever is left") {
    if (!possible()) return;
    AgentProcess agent(first_process());
    Host host = agent.session(true);
    // An orphan in a session of its own, which no group of ours reaches, and which does not listen.
    const Spawn spawn = as_root(
        framed(shell("trap '' TERM; setsid sh -c 'echo up; while :; do sleep 1000; done' & read line; exit 0")));
    start(host, 1, spawn);
    CHECK(pid_of(started(host, 1)) > 1);
    CHECK(read_until(host, 1, "up") == "up\n");
    feed(host, 1, "go\n");
    CHECK(exit_of(host, 1).code == 0);
    start(host, 2, as_root(command({"sleep", "1000"})));
    started(host, 2);
    agent.shut_down(100);
    CHECK(exit_of(host, 2).code == SIGTERM);
    CHECK(agent.status() == 0);
  }

  TEST_CASE("S22 the first process ignores the signals of those within") {
    if (!possible()) return;
    AgentProcess agent(first_process());
    Host host = agent.session(true);
    const Spawn spawn =
        as_root(framed(shell("for s in TERM INT HUP PIPE CHLD STOP KILL USR1; do kill -$s 1; done; echo sent"), false));
    CHECK(run(host, 1, spawn).out == "sent\n");
    host.ping();
  }

  TEST_CASE("S22 the end of the leash ends everything in the box") {
    if (!possible()) return;
    AgentProcess agent(first_process());
    Host host = agent.session(true);
    Pipe pipe = make_pipe();
    Spawn spawn = as_root(shell("setsid sleep 1000 & exit 0"));
    spawn.out = Stdio::kPassed;
    const int passed[] = {pipe.write.get()};
    start(host, 1, spawn, passed);
    pipe.write.reset();
    CHECK(exit_of(host, 1).code == 0);
    host.close();
    CHECK(read_all(pipe.read.get()).empty());  // its last holder is gone
    agent.status();
  }

  TEST_CASE("X26 where one id is mapped nobody else can be asked for") {
    if (!possible()) return;
    AgentProcess agent(first_process());
    Host host = agent.session(true);
    Spawn spawn = as_root(framed(shell("id -u; id -g"), false));
    CHECK(run(host, 1, spawn).out == "0\n0\n");
    for (const User& user : {User{.kind = User::Kind::kIds, .name = {}, .uid = 1, .gid = {}},
                             User{.kind = User::Kind::kIds, .name = {}, .uid = 0, .gid = 1},
                             User{.kind = User::Kind::kName, .name = "daemon", .gid = {}}}) {
      spawn.user = user;
      const SpawnFailed failed = failure(host, 2, spawn);
      CHECK(failed.step == SpawnStep::kUser);
      CHECK(failed.os_error == EINVAL);
    }
  }
}

}  // namespace sluicebox::agent::test

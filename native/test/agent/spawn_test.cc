#include <sys/resource.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "test/agent/agent_driver.h"

namespace sluicebox::agent::test {

namespace {

class Directory {
 public:
  Directory() { REQUIRE(::mkdtemp(path_) != nullptr); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    for (const std::string& name : names_) ::unlink(name.c_str());
    ::rmdir(path_);
  }
  std::string path() const { return path_; }
  std::string file(const std::string& name, const std::string& text, mode_t mode) {
    std::string full = path() + "/" + name;
    std::ofstream(full) << text;
    ::chmod(full.c_str(), mode);
    names_.push_back(full);
    return full;
  }

 private:
  char path_[32] = "/tmp/sluicebox-agent-XXXXXX";
  std::vector<std::string> names_;
};

bool failed_with(const SpawnFailed& failed, SpawnStep step, int os_error) {
  INFO("step ", static_cast<int>(failed.step), ", error ", failed.os_error);
  CHECK(failed.step == step);
  CHECK(failed.os_error == static_cast<std::uint32_t>(os_error));
  return failed.step == step && failed.os_error == static_cast<std::uint32_t>(os_error);
}

}  // namespace

TEST_SUITE("agent spawn") {
  TEST_CASE("X17 exit codes arrive unchanged") {
    AgentProcess agent;
    Host host = agent.session();
    std::uint32_t channel = 0;
    for (const std::uint32_t code : {0U, 1U, 2U, 126U, 127U, 128U, 137U, 255U}) {
      const Outcome outcome = run(host, ++channel, shell("exit " + std::to_string(code)));
      CHECK_FALSE(outcome.exited.signaled);
      CHECK(outcome.exited.code == code);
      CHECK_FALSE(outcome.exited.forced);
      CHECK_FALSE(outcome.exited.timed_out);
    }
    CHECK(run(host, 100, command({"true"})).exited.code == 0);
    CHECK(run(host, 101, command({"/bin/false"})).exited.code == 1);
  }

  TEST_CASE("X18 death by a signal is told from an exit code") {
    AgentProcess agent;
    Host host = agent.session();
    std::uint32_t channel = 0;
    for (const int number : {SIGKILL, SIGTERM, SIGSEGV, SIGHUP, 34, 64}) {
      const Outcome outcome = run(host, ++channel, shell("ulimit -c 0; kill -" + std::to_string(number) + " $$"));
      CHECK(outcome.exited.signaled);
      CHECK(outcome.exited.code == static_cast<std::uint32_t>(number));
    }
  }

  TEST_CASE("X19 a missing file is ENOENT and leaves no execution") {
    AgentProcess agent;
    Host host = agent.session();
    failed_with(failure(host, 1, command({"no-such-program"})), SpawnStep::kProgram, ENOENT);
    failed_with(failure(host, 2, command({"/no/such/program"})), SpawnStep::kProgram, ENOENT);
    failed_with(failure(host, 3, command({""})), SpawnStep::kProgram, ENOENT);
    CHECK_FALSE(kill(host, 1, {.signal = SIGTERM}).delivered);
    // The channel is free again.
    CHECK(run(host, 1, command({"true"})).exited.code == 0);
  }

  TEST_CASE("X20 what is no program says why") {
    AgentProcess agent;
    Host host = agent.session();
    Directory directory;
    const std::string plain = directory.file("plain", "#!/bin/sh\n", 0644);
    const std::string orphan = directory.file("orphan", "#!/no/such/interpreter\n", 0755);
    const std::string nonsense = directory.file("nonsense", "neither a script nor a binary\n", 0755);
    ::chmod(directory.path().c_str(), 0755);
    failed_with(failure(host, 1, command({"/usr"})), SpawnStep::kProgram, EACCES);
    failed_with(failure(host, 2, command({plain})), SpawnStep::kProgram, EACCES);
    failed_with(failure(host, 3, command({orphan})), SpawnStep::kProgram, ENOENT);
    failed_with(failure(host, 4, command({nonsense})), SpawnStep::kProgram, ENOEXEC);
    failed_with(failure(host, 5, command({plain + "/below"})), SpawnStep::kProgram, ENOTDIR);
  }

  TEST_CASE("X21 a bad working directory is told from a missing file") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = command({"no-such-program"});
    spawn.cwd = "/no/such/directory";
    failed_with(failure(host, 1, spawn), SpawnStep::kWorkingDirectory, ENOENT);
    spawn.cwd = "/etc/passwd";
    failed_with(failure(host, 2, spawn), SpawnStep::kWorkingDirectory, ENOTDIR);
    spawn = framed(command({"pwd"}), false);
    spawn.cwd = "/usr/bin";
    CHECK(run(host, 3, spawn).out == "/usr/bin\n");
  }

  TEST_CASE("X23 argv arrives verbatim") {
    AgentProcess agent;
    Host host = agent.session();
    const std::vector<std::string> words = {"a b", "\"'`\\", "$(touch /tmp/x)",  "line\nline", "",
                                            "--",  "-n",     "\xf0\x9f\x92\xa7", "\xff\xfe",   "*"};
    std::vector<std::string> argv = {"printf", "%s\\0"};
    argv.insert(argv.end(), words.begin(), words.end());
    std::string expected;
    for (const std::string& word : words) expected += word + '\0';
    CHECK(run(host, 1, framed(command(argv), false)).out == expected);
  }

  TEST_CASE("X24 a megabyte of arguments works, and too many are E2BIG") {
    AgentProcess agent;
    Host host = agent.session();
    std::vector<std::string> argv = {"sh", "-c", "echo $#", "sh"};
    for (int i = 0; i < 1000; ++i) argv.emplace_back(1000, 'x');
    CHECK(run(host, 1, framed(command(argv), false)).out == "1000\n");
    argv.emplace_back(200 * 1024, 'y');  // one string of the kernel's is at most 128 KiB
    failed_with(failure(host, 2, command(argv)), SpawnStep::kProgram, E2BIG);
    argv.pop_back();
    for (int i = 0; i < 7000; ++i) argv.emplace_back(1000, 'x');  // 6 MiB in all
    failed_with(failure(host, 3, command(argv)), SpawnStep::kProgram, E2BIG);
    CHECK(run(host, 4, command({"true"})).exited.code == 0);
  }

  TEST_CASE("X25 the environment is the one given, and its PATH finds the program") {
    AgentProcess agent;
    Host host = agent.session();
    Directory directory;
    directory.file("mine", "#!/bin/sh\necho found\n", 0755);
    directory.file("hidden", "#!/bin/sh\n", 0644);
    ::chmod(directory.path().c_str(), 0755);
    Spawn spawn = framed(command({"/usr/bin/env"}), false);
    spawn.env = {"B=2", "A=1 = 1"};
    CHECK(run(host, 1, spawn).out == "B=2\nA=1 = 1\n");
    spawn.argv = {"mine"};
    spawn.env = {"PATH=/nowhere:" + directory.path() + ":/bin"};
    CHECK(run(host, 2, spawn).out == "found\n");
    // As execvp: a part that may not be run is passed over, and named if nothing better follows.
    spawn.argv = {"hidden"};
    failed_with(failure(host, 3, spawn), SpawnStep::kProgram, EACCES);
    spawn.argv = {"mine"};
    spawn.env = {"PATH=/nowhere:"};
    spawn.cwd = directory.path();
    CHECK(run(host, 4, spawn).out == "found\n");
    spawn.argv = {"env"};
    spawn.env = {};
    CHECK(run(host, 5, spawn).out.empty());
  }

  TEST_CASE("X26 ids and groups are those of the user files") {
    if (::geteuid() != 0) {
      MESSAGE("skipped: becoming another user needs root");
      return;
    }
    AgentProcess agent;
    Host host = agent.session();
    std::uint32_t channel = 0;
    const auto id = [&](const User& user, const std::string& options) {
      Spawn spawn = framed(command({"sh", "-c", "id " + options}), false);
      spawn.user = user;
      std::string text = run(host, ++channel, spawn).out;
      if (!text.empty()) text.pop_back();
      return text;
    };
    const auto named = [](std::string name) {
      return User{.kind = User::Kind::kName, .name = std::move(name), .gid = {}};
    };
    for (const char* name : {"root", "daemon", "nobody", "mail"}) {
      INFO(name);
      // id with a name asks the files, without one the kernel.
      CHECK(id(named(name), "-u") == id({}, std::string("-u ") + name));
      CHECK(id(named(name), "-g") == id({}, std::string("-g ") + name));
      CHECK(id(named(name), "-G") == id({}, std::string("-G ") + name));
    }
    const User numbers{.kind = User::Kind::kIds, .name = {}, .uid = 4321, .gid = 8765};
    CHECK(id(numbers, "-u") == "4321");
    CHECK(id(numbers, "-G") == "8765");
    const User one{.kind = User::Kind::kIds, .name = {}, .uid = 1, .gid = {}};
    CHECK(id(one, "-u; id -g") == "1\n1");  // daemon's own group
    CHECK(id(named("4321"), "-u; id -g") == "4321\n0");

    Spawn spawn = command({"true"});
    spawn.user = named("no-such-user");
    failed_with(failure(host, 900, spawn), SpawnStep::kUser, 0);
    for (const std::uint32_t uid : {0xffffffffU, 5U}) {
      spawn.user = {.kind = User::Kind::kIds, .name = {}, .uid = uid, .gid = 0xffffffffU};
      failed_with(failure(host, 901, spawn), SpawnStep::kUser, EINVAL);
    }
  }

  TEST_CASE("S2 a user who is not root has no capability") {
    if (::geteuid() != 0) {
      MESSAGE("skipped: becoming another user needs root");
      return;
    }
    AgentProcess agent({"setpriv", "--inh-caps", "+chown", "--ambient-caps", "+chown"});
    Host host = agent.session();
    Spawn spawn = framed(command({"grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"}), false);
    spawn.user = {.kind = User::Kind::kIds, .name = {}, .uid = 4321, .gid = 4321};
    CHECK(run(host, 1, spawn).out ==
          "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
          "CapAmb:\t0000000000000000\n");
  }

  TEST_CASE("X66 a process of another user can open its own descriptors by name") {
    if (::geteuid() != 0) {
      MESSAGE("skipped: becoming another user needs root");
      return;
    }
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = framed(shell("cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr"));
    spawn.user = {.kind = User::Kind::kIds, .name = {}, .uid = 4321, .gid = 4321};
    const Outcome outcome = run(host, 1, spawn, "in ");
    CHECK(outcome.out == "in out\n");
    CHECK(outcome.err == "err\n");
  }

  TEST_CASE("S1 a process has descriptors 0, 1 and 2 and no more") {
    // Left open across exec, as a careless host would.
    const UniqueFd low(::open("/etc/passwd", O_RDONLY));
    const UniqueFd high(::fcntl(low.get(), F_DUPFD, 500));
    REQUIRE(high.valid());
    AgentProcess agent;
    Host host = agent.session();
    Host other = agent.session();
    start(host, 1, framed(command({"cat"})));
    started(host, 1);
    // Of the shell, which opens none of its own for this.
    CHECK(output_of(host, 2, "echo /proc/$$/fd/*").find(" /proc") != std::string::npos);
    std::string listed = output_of(host, 3, "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done");
    // A directory that the shell reads to expand the pattern may be among them, but nothing behind it.
    CHECK((listed == "0\n1\n2\n" || listed == "0\n1\n2\n3\n"));
    CHECK(output_of(host, 4,
                    "for fd in 3 4 5 6 7 8 9 10 11 12 500; do if [ -e /proc/$$/fd/$fd ]; then echo $fd; fi; done; true")
              .empty());
    Spawn terminal = on_terminal(
        shell("for fd in 3 4 5 6 7 8 9 10 11 12 500; do if [ -e /proc/$$/fd/$fd ]; then echo $fd; fi; done; true"),
        Stdio::kFramed);
    CHECK(run(host, 5, terminal).out.empty());
  }

  TEST_CASE("X27 a process leads its own session, with default signals, no mask and umask 022") {
    // What the agent inherits must not come through.
    sigset_t blocked;
    sigset_t before;
    sigfillset(&blocked);
    ::sigprocmask(SIG_SETMASK, &blocked, &before);
    struct sigaction ignore{};
    struct sigaction old[3];
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &ignore, &old[0]);
    ::sigaction(SIGINT, &ignore, &old[1]);
    ::sigaction(SIGRTMIN, &ignore, &old[2]);
    const mode_t mask = ::umask(0777);
    AgentProcess agent;
    ::umask(mask);
    ::sigaction(SIGPIPE, &old[0], nullptr);
    ::sigaction(SIGINT, &old[1], nullptr);
    ::sigaction(SIGRTMIN, &old[2], nullptr);
    ::sigprocmask(SIG_SETMASK, &before, nullptr);

    Host host = agent.session();
    const std::string status = run(host, 1, framed(command({"cat", "/proc/self/status"}), false)).out;
    for (const char* line : {"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "SigCgt:\t0000000000000000",
                             "SigPnd:\t0000000000000000", "Umask:\t0022"}) {
      CHECK_MESSAGE(status.find(line) != std::string::npos, line, " is not in\n", status);
    }
    start(host, 2, framed(command({"cat", "/proc/self/stat"}), false));
    const pid_t pid = pid_of(started(host, 2));
    std::istringstream stat(follow(host, 2, framed(command({""}), false)).out);
    std::string number, name, state, parent, group, session;
    stat >> number >> name >> state >> parent >> group >> session;
    CHECK(number == std::to_string(pid));
    CHECK(group == number);
    CHECK(session == number);
    CHECK(output_of(host, 3, "yes | head -1") == "y\n");
  }

  TEST_CASE("S20 the agent's own limit of files is not a process's") {
    AgentProcess agent({"sh", "-c", "ulimit -Sn 77; exec \"$0\""});
    Host host = agent.session();
    CHECK(output_of(host, 1, "ulimit -Sn") == "77\n");
    CHECK(output_of(host, 2, "ulimit -Hn") != "77\n");
  }

  TEST_CASE("X38 a hundred executions at once get their own output, code and pid") {
    AgentProcess agent;
    Host host = agent.session();
    std::vector<pid_t> pids(101);
    for (std::uint32_t channel = 1; channel <= 100; ++channel) {
      start(host, channel,
            framed(shell("read line; echo $line " + std::to_string(channel) + " $$; exit " + std::to_string(channel))));
    }
    for (std::uint32_t channel = 1; channel <= 100; ++channel) pids[channel] = pid_of(started(host, channel));
    for (std::uint32_t channel = 1; channel <= 100; ++channel) feed(host, channel, "word\n");
    for (std::uint32_t channel = 1; channel <= 100; ++channel) {
      const Outcome outcome = follow(host, channel, framed(command({""}), false));
      CHECK(outcome.out == "word " + std::to_string(channel) + " " + std::to_string(pids[channel]) + "\n");
      CHECK(outcome.exited.code == channel);
    }
  }

  TEST_CASE("X65 ignored streams are /dev/null inside, and stderr may be stdout") {
    AgentProcess agent;
    Host host = agent.session();
    Spawn spawn = shell("echo \"$(readlink /proc/$$/fd/0 /proc/$$/fd/1)\" >&2");
    spawn.err = Stdio::kFramed;
    CHECK(run(host, 1, spawn).err == "/dev/null\n/dev/null\n");
    spawn = shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2");
    spawn.out = Stdio::kFramed;
    spawn.err = Stdio::kStdout;
    CHECK(run(host, 2, spawn).out == "1\n2\n3\n4\n");
    spawn.out = Stdio::kNull;
    CHECK(run(host, 3, spawn).out.empty());
    CHECK(run(host, 4, command({"cat"})).exited.code == 0);
  }

  TEST_CASE("X62 the end brings times and memory used") {
    AgentProcess agent;
    Host host = agent.session();
    const auto before =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    const auto begin = Clock::now();
    const Exited exited = run(host, 1, shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).exited;
    const auto lasted = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
    CHECK(exited.duration_us > 0);
    CHECK(exited.duration_us <= static_cast<std::uint64_t>(lasted));
    CHECK(exited.user_us + exited.system_us > 0);
    CHECK(exited.max_rss_bytes > 100 * 1024);
    CHECK(exited.started_at_ms >= static_cast<std::uint64_t>(before));
    CHECK(exited.started_at_ms <=
          static_cast<std::uint64_t>(before) + static_cast<std::uint64_t>(lasted) / 1000 + 1000);
  }
}

}  // namespace sluicebox::agent::test

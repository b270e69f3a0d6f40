#include "box/child_program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/unique_fd.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kMostWords = 2000;
constexpr int kGlanceMs = 100;
constexpr int kPassed = 3;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error(errno, "cannot make a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<pid_t> spawn(const ChildProgram& program, const Pipe& output, const Pipe& words) {
  std::vector<std::string> line = program.arguments;
  line.insert(line.begin(), program.path);
  std::vector<char*> argv;
  argv.reserve(line.size() + 1);
  for (std::string& word : line) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::array<char*, 1> environment = {nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output.write.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, words.write.get(), 2);
  if (program.passed >= 0) ::posix_spawn_file_actions_adddup2(&actions, program.passed, kPassed);
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, program.path.c_str(), &actions, nullptr, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return os_error(failed, "cannot run a program", program.path);
  return child;
}

// What is there to be read; false: nothing will come any more.
bool read_some(int pipe, std::string& text) {
  std::array<char, 4096> chunk{};
  const ssize_t got = ::read(pipe, chunk.data(), chunk.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  text.append(chunk.data(), static_cast<std::size_t>(got));
  if (text.size() > kMostWords) text.erase(0, text.size() - kMostWords);
  return got > 0;
}

Result<int> await_end(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return os_error(errno, "cannot wait for a program");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

Result<ChildEnd> run_program(const ChildProgram& program, const CancelToken& cancel,
                             const std::function<void()>& while_it_runs) {
  TRY(cancel.check());
  Pipe output = TRY(make_pipe());
  Pipe words = TRY(make_pipe());
  const pid_t child = TRY(spawn(program, output, words));
  output.write.reset();
  words.write.reset();
  ChildEnd end;
  while (output.read.valid() || words.read.valid()) {
    if (cancel.cancelled()) {
      ::kill(child, SIGKILL);
      TRY(await_end(child));
      return cancel.check().error();
    }
    pollfd waiting[] = {{.fd = output.read.get(), .events = POLLIN, .revents = 0},
                        {.fd = words.read.get(), .events = POLLIN, .revents = 0}};
    ::poll(waiting, 2, kGlanceMs);
    if (waiting[0].revents != 0 && !read_some(output.read.get(), end.output)) output.read.reset();
    if (waiting[1].revents != 0 && !read_some(words.read.get(), end.words)) words.read.reset();
    if (while_it_runs) while_it_runs();
  }
  end.exit_code = TRY(await_end(child));
  while (!end.words.empty() && end.words.back() == '\n') end.words.pop_back();
  std::replace(end.words.begin(), end.words.end(), '\n', ' ');
  return end;
}

}  // namespace sluicebox::box

// PID 1 of a box under test, in place of the agent: it runs what the test says and tells how that went. Over the first
// session, one packet a command, one an answer:
//   e<argv, NUL between>   executes a program, as root of the box: status, then its output
//   s<n>[,argument]...     makes a system call in a child: its result, and errno. An argument is a number, or 'text
//   x                      ends
// It ends when the link hangs up or says kShutdown.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "protocol/packet_socket.h"

namespace {

using sluicebox::UniqueFd;
using sluicebox::protocol::kMaxPayload;
using sluicebox::protocol::Type;

constexpr int kLink = 3;
constexpr std::size_t kLargestAnswer = 100000;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  while (true) {
    const std::size_t end = text.find(separator, from);
    parts.push_back(text.substr(from, end - from));
    if (end == std::string::npos) return parts;
    from = end + 1;
  }
}

int wait_child(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

std::string execute(const std::string& command) {
  std::vector<std::string> words = split(command, '\0');
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child < 0) return "no fork";
  if (child == 0) {
    ::setsid();
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close_range(3, ~0U, 0);
    char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char home[] = "HOME=/root";
    char* environment[] = {path, home, nullptr};
    ::setenv("PATH", path + 5, 1);
    ::execvpe(argv[0], argv.data(), environment);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    if (output.size() < kLargestAnswer) output.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  return std::to_string(wait_child(child)) + "\n" + output;
}

long argument(const std::string& text) {
  // A system call takes pointers as numbers.
  if (text.starts_with("'")) return reinterpret_cast<long>(text.c_str() + 1);
  return static_cast<long>(std::strtoull(text.c_str(), nullptr, 0));
}

std::string call(const std::string& command) {
  const std::vector<std::string> words = split(command, ',');
  long values[7] = {};
  for (std::size_t i = 0; i < words.size() && i < 7; ++i) values[i] = argument(words[i]);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    long answer[2] = {};
    errno = 0;
    answer[0] = ::syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
    answer[1] = errno;
    (void)!::write(ends[1], answer, sizeof answer);
    ::_exit(0);
  }
  ::close(ends[1]);
  long answer[2] = {};
  const bool told = ::read(ends[0], answer, sizeof answer) == sizeof answer;
  ::close(ends[0]);
  const int status = wait_child(child);
  return told ? std::to_string(answer[0]) + " " + std::to_string(answer[1]) : "died " + std::to_string(status);
}

// i386's getpid by its own door: what a 32-bit program would use. The child dies if the processor has no such door.
std::string foreign_call() {
#if defined(__x86_64__)
  const pid_t child = ::fork();
  if (child == 0) {
    long result = 20;
    asm volatile("int $0x80" : "+a"(result)::"memory", "r8", "r9", "r10", "r11");
    ::_exit(result == -ENOSYS ? 0 : result == -EPERM ? 1 : 2);
  }
  return std::to_string(wait_child(child));
#else
  return "0";
#endif
}

UniqueFd first_session() {
  std::array<std::byte, kMaxPayload> buffer;
  auto frame = sluicebox::protocol::receive_frame(kLink, buffer);
  if (!frame.ok() || frame.value().descriptors.size() != 1) ::_exit(90);
  return std::move(frame.value().descriptors[0]);
}

void serve(int session) {
  std::string packet(kLargestAnswer, '\0');
  const ssize_t got = ::recv(session, packet.data(), packet.size(), 0);
  if (got <= 0) ::_exit(0);
  packet.resize(static_cast<std::size_t>(got));
  std::string answer = "?";
  if (packet[0] == 'e') answer = execute(packet.substr(1));
  if (packet[0] == 's') answer = call(packet.substr(1));
  if (packet[0] == 'f') answer = foreign_call();
  if (packet[0] == 'x') ::_exit(7);
  (void)::send(session, answer.data(), answer.size(), MSG_NOSIGNAL);
}

}  // namespace

int main() {
  const UniqueFd session = first_session();
  (void)::send(session.get(), "ready", 5, MSG_NOSIGNAL);
  while (true) {
    pollfd ends[] = {{session.get(), POLLIN, 0}, {kLink, POLLIN, 0}};
    if (::poll(ends, 2, -1) < 0) continue;
    if (ends[1].revents != 0) return 0;
    if (ends[0].revents != 0) serve(session.get());
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }
}

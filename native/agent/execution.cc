#include "agent/execution.h"

#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <utility>

namespace sluicebox::agent {

namespace {

using protocol::Stream;
using protocol::Type;

std::uint64_t microseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(time.tv_usec);
}

std::uint64_t epoch_milliseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace

Execution::Execution(Loop& loop, Children& children, Outbox& outbox, std::uint32_t channel)
    : loop_(loop), children_(children), outbox_(outbox), channel_(channel) {}

Execution::~Execution() {
  if (pid_ == 0) return;
  end(false);
  children_.abandon(pid_);
}

bool Execution::start(Launcher& launcher, protocol::Spawn&& request, std::vector<UniqueFd> passed,
                      std::uint32_t number) {
  started_ = monotonic_now();
  started_at_ms_ = epoch_milliseconds();
  const Deadline deadline{request.timeout_ms, static_cast<int>(request.kill_signal), request.grace_ms};
  const std::uint32_t window = request.window;
  terminal_ = request.tty;
  LaunchResult launched = launcher.launch(std::move(request), std::move(passed));
  if (launched.process.pid < 0) {
    outbox_.send(
        Type::kSpawnFailed, channel_, number,
        encode(protocol::SpawnFailed{launched.process.step, static_cast<std::uint32_t>(launched.process.os_error)}));
    return false;
  }
  pid_ = launched.process.pid;
  children_.add(pid_, *this);
  Wiring& wiring = launched.wiring;
  terminal_size_ = std::move(wiring.terminal_size);
  outbox_.send(Type::kSpawned, channel_, number, encode(protocol::Spawned{static_cast<std::uint32_t>(pid_)}),
               std::move(wiring.master));
  if (wiring.in.valid()) in_.emplace(loop_, outbox_, channel_, std::move(wiring.in), terminal_).open();
  if (wiring.out.valid())
    out_.emplace(loop_, outbox_, channel_, Stream::kStdout, std::move(wiring.out), terminal_, window);
  if (wiring.err.valid()) err_.emplace(loop_, outbox_, channel_, Stream::kStderr, std::move(wiring.err), false, window);
  arm(deadline);
  return true;
}

void Execution::arm(const Deadline& deadline) {
  if (deadline.timeout_ms == 0) return;
  timeout_ = loop_.at(deadline_after(deadline.timeout_ms), [this, number = deadline.signal, grace = deadline.grace_ms] {
    timeout_.reset();
    children_.reap();  // it may have ended in time
    if (pid_ == 0) return;
    timed_out_ = true;
    signal(number, protocol::KillScope::kGroup);
    if (grace >= 0) force_at(deadline_after(static_cast<std::uint64_t>(grace)));
  });
}

protocol::Killed Execution::kill(const protocol::Kill& request) {
  // A signal to a process that has ended but is not yet reaped would seem to have reached it.
  children_.reap();
  const int failed = signal(static_cast<int>(request.signal), request.scope);
  if (failed == 0 && request.force_after_ms >= 0)
    force_at(deadline_after(static_cast<std::uint64_t>(request.force_after_ms)));
  return {.delivered = failed == 0, .os_error = static_cast<std::uint32_t>(failed)};
}

void Execution::end(bool forced) {
  if (signal(SIGKILL, protocol::KillScope::kGroup) == 0 && forced) forced_ = true;
}

// The earliest moment asked for holds.
void Execution::force_at(Nanoseconds moment) {
  if (force_.active() && force_.at() <= moment) return;
  force_ = loop_.at(moment, [this] {
    force_.reset();
    children_.reap();
    if (pid_ != 0) end(true);
  });
}

// 0, or errno. The group bears the pid's number: the process leads a session of its own from before its exec.
int Execution::signal(int number, protocol::KillScope scope) const {
  if (pid_ == 0) return ESRCH;
  return ::kill(scope == protocol::KillScope::kGroup ? -pid_ : pid_, number) == 0 ? 0 : errno;
}

protocol::Resized Execution::resize(const protocol::Resize& size) const {
  if (!terminal_) return {.os_error = ENOTTY};
  if (pid_ == 0) return {.os_error = ESRCH};
  return {.os_error = static_cast<std::uint32_t>(terminal_size_.set(size.cols, size.rows))};
}

OutputStream* Execution::output(Stream stream) {
  if (stream == Stream::kStdin) return nullptr;
  auto& output = stream == Stream::kStdout ? out_ : err_;
  return output ? &*output : nullptr;
}

void Execution::resume() {
  if (out_) out_->resume();
  if (err_) err_->resume();
}

bool Execution::over() const { return pid_ == 0 && (!out_ || out_->closed()) && (!err_ || err_->closed()); }

void Execution::ended(int status, const rusage& usage) {
  pid_ = 0;
  timeout_.reset();
  force_.reset();
  if (in_) in_->process_ended();
  protocol::Exited exited;
  exited.signaled = WIFSIGNALED(status);
  exited.code = static_cast<std::uint32_t>(exited.signaled ? WTERMSIG(status) : WEXITSTATUS(status));
  exited.timed_out = timed_out_;
  exited.forced = forced_ && exited.signaled && exited.code == SIGKILL;
  exited.user_us = microseconds(usage.ru_utime);
  exited.system_us = microseconds(usage.ru_stime);
  exited.max_rss_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
  exited.started_at_ms = started_at_ms_;
  exited.duration_us = static_cast<std::uint64_t>(monotonic_now() - started_) / 1000;
  exited.own_stdout = out_ ? out_->measure() : 0;
  exited.own_stderr = err_ ? err_->measure() : 0;
  outbox_.send(Type::kExited, channel_, 0, encode(exited));
  if (out_) out_->settle();
  if (err_) err_->settle();
}

}  // namespace sluicebox::agent

#include "box/reactor.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

namespace sluicebox::box {

namespace {

constexpr std::uint64_t kWakeToken = 0;

// The descriptor in the low half, the token's low half above it: a stale event is told from a new descriptor's.
std::uint64_t pack(int fd, std::uint64_t token) { return (token << 32) | static_cast<std::uint32_t>(fd); }

}  // namespace

Result<std::shared_ptr<Reactor>> Reactor::start() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return os_error(errno, "cannot make an epoll instance");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return os_error(errno, "cannot make an event descriptor");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = pack(wake.get(), kWakeToken);
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) return os_error(errno, "cannot watch an event");
  auto reactor = std::make_shared<Reactor>(Private(), std::move(epoll), std::move(wake));
  // The host's signals are its main thread's business, and a pipe that breaks is an errno here.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  reactor->thread_ = std::thread([raw = reactor.get()] { raw->run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return reactor;
}

Reactor::Reactor(Private, UniqueFd epoll, UniqueFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

Reactor::~Reactor() { stop(); }

bool Reactor::post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
    if (tasks_.size() > 1) return true;  // rung for the first
  }
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then it is rung.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  return true;
}

void Reactor::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

Status Reactor::watch(int fd, std::uint32_t events, Watcher* watcher) {
  const std::uint64_t token = next_token_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = pack(fd, token);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return os_error(errno, "cannot watch a descriptor");
  watched_[fd] = {watcher, token};
  return ok_status();
}

void Reactor::change(int fd, std::uint32_t events) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = pack(fd, found->second.token);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Reactor::unwatch(int fd) {
  if (watched_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Reactor::TimerId Reactor::at(Clock::time_point when, std::function<void()> task) {
  const TimerId id(when, next_timer_++);
  timers_.emplace(id, std::move(task));
  return id;
}

void Reactor::run() {
  ::pthread_setname_np(::pthread_self(), "sluicebox-box");
  while (true) {
    {
      MutexLock lock(mutex_);
      if (stopping_ && tasks_.empty()) return;
    }
    timespec wait{};
    timespec* timeout = nullptr;
    if (!timers_.empty()) {
      const auto left = std::max(Clock::duration::zero(), timers_.begin()->first.first - Clock::now());
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
      wait.tv_sec = seconds.count();
      wait.tv_nsec = static_cast<long>(std::chrono::nanoseconds(left - seconds).count());
      timeout = &wait;
    }
    std::array<epoll_event, kEvents> events;
    const int count = ::epoll_pwait2(epoll_.get(), events.data(), kEvents, timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      const auto fd = static_cast<int>(events[static_cast<std::size_t>(i)].data.u64 & 0xffffffffU);
      const std::uint64_t token = events[static_cast<std::size_t>(i)].data.u64 >> 32;
      if (fd == wake_.get()) {
        std::uint64_t rung = 0;
        [[maybe_unused]] const ssize_t got = ::read(fd, &rung, sizeof rung);
        continue;
      }
      // A watcher before this one may have ended the watch, or the number may be another descriptor's by now.
      const auto found = watched_.find(fd);
      if (found != watched_.end() && (found->second.token & 0xffffffffU) == token) {
        found->second.watcher->ready(events[static_cast<std::size_t>(i)].events);
      }
    }
    run_tasks();
    run_timers();
  }
}

void Reactor::run_tasks() {
  std::vector<std::function<void()>> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const auto& task : tasks) task();
}

// What is due now, one by one: a timer may cancel the next.
void Reactor::run_timers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
}

}  // namespace sluicebox::box

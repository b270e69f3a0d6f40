#include "walls/limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "walls/failure.h"

namespace sluicebox::walls {

namespace {

struct Row {
  __rlimit_resource resource;
  const char* name;
  rlim_t soft;
  rlim_t hard;
};

constexpr rlim_t kMiB = rlim_t{1024} * 1024;
constexpr Row kRows[] = {
    {RLIMIT_CORE, "core", 0, 0},
    {RLIMIT_NOFILE, "nofile", 1024, 65536},
    {RLIMIT_STACK, "stack", 8 * kMiB, RLIM_INFINITY},
    {RLIMIT_MEMLOCK, "memlock", 8 * kMiB, 8 * kMiB},
    {RLIMIT_MSGQUEUE, "msgqueue", 819200, 819200},
    {RLIMIT_SIGPENDING, "sigpending", 16384, 16384},
    {RLIMIT_NICE, "nice", 0, 0},
    {RLIMIT_RTPRIO, "rtprio", 0, 0},
    {RLIMIT_AS, "as", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_CPU, "cpu", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_DATA, "data", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_FSIZE, "fsize", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_LOCKS, "locks", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_RSS, "rss", RLIM_INFINITY, RLIM_INFINITY},
    {RLIMIT_RTTIME, "rttime", RLIM_INFINITY, RLIM_INFINITY},
};

// Never above the host's own: nobody but its root could.
Status set(const Row& row) {
  rlimit host{};
  if (::getrlimit(row.resource, &host) != 0) return failure(errno, std::string("read the limit ") + row.name);
  const rlimit wanted{std::min(row.soft, host.rlim_max), std::min(row.hard, host.rlim_max)};
  if (wanted.rlim_cur == host.rlim_cur && wanted.rlim_max == host.rlim_max) return ok_status();
  if (::setrlimit(row.resource, &wanted) != 0) return failure(errno, std::string("set the limit ") + row.name);
  return ok_status();
}

}  // namespace

Status set_limits(std::uint64_t processes) {
  for (const Row& row : kRows) TRY(set(row));
  const rlim_t count = processes == 0 ? RLIM_INFINITY : processes + 1;
  return set({RLIMIT_NPROC, "nproc", count, count});
}

}  // namespace sluicebox::walls

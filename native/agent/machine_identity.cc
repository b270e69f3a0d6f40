#include "agent/machine_identity.h"

#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "agent/console.h"
#include "agent/small_file.h"
#include "agent/step.h"
#include "base/unique_fd.h"

namespace sluicebox::agent {

namespace {

constexpr std::string_view kLocalhost = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
// By custom the machine's own name, where it has no other address.
constexpr std::string_view kOwnAddress = "127.0.1.1";

// The header of rand_pool_info ends in an array without a length, so it is laid out by hand: bits, bytes, the bytes.
Status add_entropy(Bytes bytes) {
  const UniqueFd random(::open("/dev/urandom", O_RDWR | O_CLOEXEC));
  if (!random.valid()) return stopped(errno, "open /dev/urandom");
  if (!bytes.empty()) {
    const int head[2] = {static_cast<int>(bytes.size() * 8), static_cast<int>(bytes.size())};
    std::vector<std::byte> info(sizeof head + bytes.size());
    std::memcpy(info.data(), head, sizeof head);
    std::memcpy(info.data() + sizeof head, bytes.data(), bytes.size());
    if (::ioctl(random.get(), RNDADDENTROPY, info.data()) != 0) return stopped(errno, "add entropy");
  }
  if (::ioctl(random.get(), RNDRESEEDCRNG) != 0) return stopped(errno, "reseed the kernel's random numbers");
  return ok_status();
}

Status set_clock(std::int64_t realtime_ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (realtime_ns <= 0) return ok_status();
  const timespec now{.tv_sec = realtime_ns / kSecond, .tv_nsec = realtime_ns % kSecond};
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) return stopped(errno, "set the clock");
  return ok_status();
}

Status bring_up_loopback() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");  // NOLINT(*-strcpy): fits
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!socket.valid() || ::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0)
    return stopped(errno, "bring up the loopback interface");
  return ok_status();
}

// The file's lines without an older name of this machine, and with its name now.
std::string hosts_with(std::string_view hosts, const std::string& hostname) {
  std::string text;
  while (!hosts.empty()) {
    const std::size_t end = hosts.find('\n');
    const std::string_view line = hosts.substr(0, end);
    hosts.remove_prefix(end == std::string_view::npos ? hosts.size() : end + 1);
    if (!line.starts_with(kOwnAddress)) text.append(line).append("\n");
  }
  return text.append(kOwnAddress).append(" ").append(hostname).append("\n");
}

void note(const char* path, std::string_view text) {
  const int failed = replace_small(path, text);
  if (failed != 0) tell(std::string("cannot write ") + path + ": " + std::strerror(failed));
}

}  // namespace

Status take_identity(const protocol::Machine& machine) {
  TRY(add_entropy(machine.entropy));
  TRY(set_clock(machine.realtime_ns));
  if (!machine.hostname.empty() && ::sethostname(machine.hostname.data(), machine.hostname.size()) != 0)
    return stopped(errno, "set the host name");
  return bring_up_loopback();
}

Status check_identity(const protocol::Machine& machine) {
  const auto id = read_small("/etc/machine-id");
  if (!id || id->starts_with(machine.machine_id)) return ok_status();
  return stopped(EROFS, "write /etc/machine-id");
}

void write_identity(const protocol::Machine& machine) {
  if (!machine.machine_id.empty()) note("/etc/machine-id", machine.machine_id + "\n");
  if (machine.hostname.empty()) return;
  note("/etc/hostname", machine.hostname + "\n");
  note("/etc/hosts", hosts_with(read_small("/etc/hosts").value_or(std::string(kLocalhost)), machine.hostname));
}

}  // namespace sluicebox::agent

// main.cc: what started the agent: a keeper, with its link on descriptor 3, or a virtual machine's kernel.
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <string_view>

#include "agent/agent.h"
#include "agent/console.h"
#include "agent/guest.h"
#include "agent/power.h"
#include "agent/settle.h"

namespace sluicebox::agent {
namespace {

constexpr int kLink = 3;
// The name by which the kernel starts the first program of an initrd; a keeper uses another.
constexpr std::string_view kInit = "/init";

int run_in_box() {
  if (!settle_descriptors(kLink)) return 1;
  // Its memory and descriptors are no business of the box's programs, nor of those with its own uid.
  ::prctl(PR_SET_DUMPABLE, 0);
  if (::getpid() != 1) ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  UniqueFd child_signals = settle_signals();
  auto loop = Loop::create();
  if (!child_signals.valid() || !loop.ok()) return 1;
  if (::fcntl(kLink, F_SETFL, ::fcntl(kLink, F_GETFL) | O_NONBLOCK) != 0) return 1;
  Agent agent(std::move(*loop), std::move(child_signals));
  agent.serve_keeper(UniqueFd(kLink));
}

Status run_in_guest() {
  TRY(begin_guest());
  if (!settle_descriptors(-1)) return Error(ErrorCode::kIo, "open /dev/null");
  ::prctl(PR_SET_DUMPABLE, 0);
  UniqueFd child_signals = settle_signals();
  auto loop = TRY(Loop::create());
  UniqueFd port = TRY(open_port());
  Agent agent(std::move(loop), std::move(child_signals));
  agent.serve_host(std::move(port));
}

[[noreturn]] void guest() {
  try {
    const Status failed = run_in_guest();
    tell("cannot " + failed.error().message + " (errno " + std::to_string(failed.error().os_error) + ")");
  } catch (...) {
    tell("no memory is left");
  }
  power_off();
}

}  // namespace
}  // namespace sluicebox::agent

int main(int argc, char** argv) {
  using namespace sluicebox::agent;  // NOLINT(google-build-using-namespace): the program's own
  if (::getpid() == 1 && argc > 0 && argv[0] == kInit) guest();
  try {
    return run_in_box();
  } catch (...) {
    return 1;  // no memory is left; the end of this process ends the box
  }
}

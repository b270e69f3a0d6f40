// The keeper: the process outside a box. It takes one order on descriptor 3, builds the box, watches it until it ends,
// and removes what is left. Everything that ends it ends the box. Told to prepare, it begins the box ahead of its
// order. By its first argument it can be asked for a job of host_image.h instead.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "keeper/answer.h"
#include "keeper/door.h"
#include "keeper/host_image.h"
#include "keeper/launch.h"
#include "keeper/setup.h"
#include "keeper/spare.h"
#include "keeper/watch.h"
#include "protocol/assembler.h"

namespace sluicebox::keeper {

namespace {

using protocol::Type;

constexpr int kOwner = 3;
constexpr std::size_t kLargestOrder = std::size_t{256} * 1024;

// Nothing of whoever started it: descriptors, terminal, signals. A Ctrl-C for the owner is not one for its boxes.
void stand_alone() {
  while (true) {
    const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd > 2 || fd < 0) {
      if (fd > 2 && fd != kOwner) ::close(fd);
      break;
    }
  }
  ::close_range(kOwner + 1, UINT_MAX, 0);
  ::fcntl(kOwner, F_SETFD, FD_CLOEXEC);
  ::setsid();
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The parts of an id that become names of cgroups and directories.
bool plain(const std::string& id) {
  if (id.empty() || id.size() > 64) return false;
  for (const char one : id) {
    const bool fine = (one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') || one == '-' || one == '_' ||
                      (one >= 'A' && one <= 'Z');
    if (!fine) return false;
  }
  return true;
}

// The process is known by its box: the order's id in the place of the argument that held one for it.
void take_name(char* argument, const std::string& id) {
  if (argument != nullptr && std::strlen(argument) == id.size()) id.copy(argument, id.size());
}

// What fails here fails again, and is told, when the box is begun for its order.
void prepare(std::vector<UniqueFd>& descriptors, std::optional<Spare>& spare) {
  if (descriptors.size() == 1 && !spare) {
    auto made = Spare::make(descriptors[0].get());
    if (made.ok()) spare.emplace(std::move(made).value());
  }
  descriptors.clear();
}

Result<Order> receive_order(std::optional<Spare>& spare) {
  protocol::Assembler assembler(kLargestOrder);
  std::vector<UniqueFd> descriptors;
  std::array<std::byte, protocol::kMaxPayload> buffer;
  while (true) {
    auto frame = TRY(protocol::receive_frame(kOwner, buffer));
    for (UniqueFd& fd : frame.descriptors) descriptors.push_back(std::move(fd));
    const auto message = TRY(assembler.add(frame.header, Bytes(buffer).first(frame.length)));
    if (!message) continue;
    if (message->header.type == Type::kPrepare) {
      prepare(descriptors, spare);
      continue;
    }
    if (message->header.type != Type::kLaunch) return Error(ErrorCode::kIo, "the first message is not a launch");
    Order order;
    order.launch = TRY(protocol::decode_launch(message->payload));
    if (!plain(order.launch.id)) return Error(ErrorCode::kInvalidArgument, "the box's id is not one");
    const std::size_t expected = order.launch.root == protocol::Root::kDirectory ? 5 : 4;
    if (descriptors.size() != expected)
      return Error(ErrorCode::kInvalidArgument, "a launch came without its descriptors");
    order.session = std::move(descriptors[0]);
    order.agent = std::move(descriptors[1]);
    order.directory = std::move(descriptors[2]);
    order.lock = std::move(descriptors[3]);
    if (expected == 5) order.root = std::move(descriptors[4]);
    return order;
  }
}

int fail(const Error& error) {
  (void)say(kOwner, Type::kLaunchFailed, protocol::encode(as_answer(error)));
  return 1;
}

// The owner went while the box was launched: nobody will start it again, nobody will clean.
void clean_for_owner(UniqueFd directory, const std::string& id) {
  (void)BoxDirectory::unlocked(std::move(directory), id).remove();
}

int run(char* argument) {
  std::optional<Spare> spare;
  auto order = receive_order(spare);
  if (!order.ok()) return fail(order.error());
  take_name(argument, order.value().launch.id);
  const bool keep = order.value().launch.keep;
  const std::string id = order.value().launch.id;
  UniqueFd directory(::fcntl(order.value().directory.get(), F_DUPFD_CLOEXEC, 0));
  // Held over the launch's end: nobody else begins with the box while it is cleaned.
  const UniqueFd lock(::fcntl(order.value().lock.get(), F_DUPFD_CLOEXEC, 0));
  auto box = launch(std::move(order).value(), std::exchange(spare, std::nullopt), kOwner);
  if (!box.ok()) {
    if (box.error().code == ErrorCode::kClosed && !keep) clean_for_owner(std::move(directory), id);
    return fail(box.error());
  }
  Company company{.owner = UniqueFd(kOwner), .door = {}, .others = {}};
  auto door = open_door(box.value().directory.get());
  if (door.ok())
    company.door = std::move(door).value();
  else
    box.value().warnings.push_back("no other process gets in: " + door.error().message);
  protocol::Launched launched;
  launched.pid = static_cast<std::uint32_t>(box.value().first.pid);
  launched.first_uid = box.value().ids.first;
  launched.warnings = box.value().warnings;
  // Without an owner the watch ends at once.
  (void)say(kOwner, Type::kLaunched, protocol::encode(launched));
  protocol::Ended ended = watch(box.value(), company);
  clean(box.value(), keep, ended);
  company.tell(Type::kEnded, protocol::encode(ended));
  return 0;
}

}  // namespace

}  // namespace sluicebox::keeper

int main(int count, char** arguments) {
  // No box's name begins like that.
  if (count > 1 && std::string_view(arguments[1]).starts_with("--"))
    return sluicebox::keeper::do_host_job(std::span(arguments, static_cast<std::size_t>(count)).subspan(1));
  sluicebox::keeper::stand_alone();
  return sluicebox::keeper::run(count > 1 ? arguments[1] : nullptr);
}

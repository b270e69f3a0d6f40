#include "keeper/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "keeper/answer.h"
#include "keeper/beginning.h"
#include "keeper/setup.h"
#include "walls/failure.h"
#include "walls/mount.h"

namespace sluicebox::keeper {

namespace {

using protocol::Launch;
using protocol::Root;
using protocol::Type;
using walls::failure;

constexpr std::uint64_t kDefaultStorage = std::uint64_t{1} << 30;

// FNV-1a: boxes that start at once look for ids at different places.
std::uint64_t seed_of(std::string_view id) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char one : id) hash = (hash ^ static_cast<unsigned char>(one)) * 0x100000001b3;
  return hash;
}

std::uint64_t storage_of(const Launch& launch) {
  if (launch.storage_bytes != 0) return launch.storage_bytes;
  return launch.memory_bytes.value != 0 ? launch.memory_bytes.value : kDefaultStorage;
}

// The layer lies in the box's directory.
bool keeps_layer(const Launch& launch) { return launch.keep && !launch.temporary_layer; }

std::uint64_t epoch_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000000;
}

std::string above(const std::string& path) {
  const std::size_t cut = path.rfind('/');
  return cut == std::string::npos || cut == 0 ? std::string() : path.substr(0, cut);
}

Status check_storage(const Launch& launch, std::vector<std::string>& warnings) {
  if (!keeps_layer(launch) || launch.storage_bytes == 0) return ok_status();
  if (!launch.storage_asked) {
    warnings.emplace_back("storage limit: a layer that is kept has none on this host's file system");
    return ok_status();
  }
  Error error(ErrorCode::kUnsupported, "storage limit: a layer that is kept has none on this host's file system");
  return std::move(error).advise("leave storage out, or keep no layer");
}

Status make_kept_layer(const BoxDirectory& directory) {
  for (const char* name : {"layer", "layer/root"}) {
    if (::mkdirat(directory.get(), name, name == std::string_view("layer") ? 0700 : 0755) != 0 && errno != EEXIST)
      return failure(errno, "make the box's layer", directory.path());
  }
  return ok_status();
}

Status limit(const Order& order, Box& box) {
  const Launch& launch = order.launch;
  const auto of = [](const protocol::Limit& one) { return walls::WantedLimit{one.value, one.asked}; };
  box.cgroups = TRY(walls::Cgroups::plan("sluicebox-" + launch.id,
                                         {of(launch.memory_bytes), of(launch.vcpus), of(launch.processes)}));
  TRY(box.directory.record_cgroups(box.cgroups.directories()));
  TRY(box.cgroups.make());
  for (const std::string& warning : box.cgroups.warnings()) box.warnings.push_back(warning);
  return ok_status();
}

// PID 1's own user namespace must own the ids of what lies under its root; only root of the host may take such trees.
// Without that right PID 1 takes the places itself.
struct Trees {
  std::vector<UniqueFd> taken;
  std::vector<int> numbers() const {
    std::vector<int> fds;
    fds.reserve(taken.size());
    for (const UniqueFd& tree : taken) fds.push_back(tree.get());
    return fds;
  }
};

Result<Trees> take_trees(const Order& order, Box& box) {
  Trees trees;
  const bool lower = order.launch.root == Root::kDirectory;
  if (box.ids.first == 0 || (!lower && !keeps_layer(order.launch))) return trees;
  const std::string path = "/proc/" + std::to_string(box.first.pid) + "/ns/user";
  const UniqueFd ids(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!ids.valid()) return failure(errno, "open the box's user namespace", path);
  if (lower) {
    trees.taken.push_back(TRY(walls::clone_tree(order.root.get(), "", walls::kReadOnly, walls::Depth::kOne)));
    if (!walls::map_ids(trees.taken.back().get(), ids.get()).ok())
      box.warnings.emplace_back(
          "rootfs: its file system cannot map ids, so what root owns there belongs to nobody in the box");
  }
  if (keeps_layer(order.launch)) {
    trees.taken.push_back(
        TRY(walls::clone_tree(box.directory.get(), "layer", walls::kNoSuidNoDev, walls::Depth::kOne)));
    const Status mapped = walls::map_ids(trees.taken.back().get(), ids.get());
    if (!mapped.ok())
      return walls::unsupported(mapped.error().os_error, "keep the box's layer in its home", box.directory.path(),
                                "the home's file system cannot map ids: choose a home on another one");
  }
  return trees;
}

// Until PID 1 says that it becomes the agent, and its end closes.
Status await_agent(const Box& box, int setup, int owner) {
  bool ready = false;
  while (true) {
    pollfd ends[] = {{setup, POLLIN, 0}, {owner, 0, 0}};
    if (::poll(ends, 2, -1) < 0 && errno != EINTR) return failure(errno, "wait for PID 1");
    if ((ends[1].revents & (POLLHUP | POLLERR)) != 0) return Error(ErrorCode::kClosed, "the owner is gone");
    if (ends[0].revents == 0) continue;
    auto word = hear(setup);
    if (!word.ok() && word.error().code == ErrorCode::kClosed && ready) return ok_status();
    if (!word.ok()) break;
    if (word.value().type == Type::kLaunchFailed)
      return as_error(TRY(protocol::decode_launch_failed(word.value().payload)));
    ready = word.value().type == Type::kLaunched;
  }
  const walls::ProcessEnd end = walls::reap(box.first.handle.get());
  return Error(ErrorCode::kBoxStart, "PID 1 died while its walls were built, by " +
                                         std::string(end.signaled ? "signal " : "exit ") + std::to_string(end.code));
}

// Numbers of descriptors stay the keeper's: they are open as long as the order and the box are.
FirstProcess plan_first_process(const Order& order, const Box& box, const walls::IdRange& ids) {
  const Launch& launch = order.launch;
  FirstProcess first;
  first.agent = order.agent.get();
  first.root.host = launch.root == Root::kHost;
  first.root.keep = keeps_layer(launch);
  first.root.storage = storage_of(launch);
  if (ids.first == 0) {
    first.root.lower_place = order.root.get();
    first.root.box_place = box.directory.get();
  }
  return first;
}

Rest rest_of(const Launch& launch, const Box& box) {
  return {{launch.hostname, above(box.directory.path()), storage_of(launch)}, launch.processes.value};
}

// The session waits in the link until the agent reads it.
Status hand_over_session(int link, UniqueFd session) {
  const int descriptors[] = {session.get()};
  const auto hello = protocol::encode(protocol::Hello{protocol::kVersion, true});
  return say(link, Type::kSession, hello, descriptors);
}

// What is begun is the box's from then on: whatever fails later ends it.
void adopt(Beginning beginning, Box& box, UniqueFd& setup) {
  box.ids = std::move(beginning.ids);
  box.first = std::move(beginning.first);
  box.link = std::move(beginning.link);
  setup = std::move(beginning.setup);
}

Status begin_for(const Order& order, Box& box, UniqueFd& setup) {
  walls::IdRange ids = TRY(walls::choose_ids(order.launch.first_uid, seed_of(order.launch.id)));
  if (keeps_layer(order.launch)) TRY(make_kept_layer(box.directory));
  FirstProcess plan = plan_first_process(order, box, ids);
  Beginning begun = TRY(begin(std::move(plan), std::move(ids)));
  adopt(std::move(begun), box, setup);
  const Trees trees = TRY(take_trees(order, box));
  // A PID 1 that died meanwhile hears nothing; await_agent() says how it ended.
  (void)say(setup.get(), Type::kHello, {}, trees.numbers());
  return ok_status();
}

Status start(Order& order, std::optional<Spare> spare, Box& box, int owner) {
  UniqueFd setup;
  TRY(check_storage(order.launch, box.warnings));
  if (spare && spare->fits(order.launch))
    adopt(std::move(*spare).take(), box, setup);
  else
    TRY(begin_for(order, box, setup));
  // While it mounts: the first write to a v1 cgroup's list takes the kernel milliseconds.
  TRY(limit(order, box));
  TRY(box.cgroups.join(box.first.pid));
  (void)say(setup.get(), Type::kPing, encode(rest_of(order.launch, box)));
  TRY(hand_over_session(box.link.get(), std::move(order.session)));
  return await_agent(box, setup.get(), owner);
}

void undo(Box& box) {
  if (box.first.handle.valid()) {
    walls::kill_process(box.first.handle.get());
    walls::reap(box.first.handle.get());
  }
  box.cgroups.remove();
  box.directory.forget_own_files();
}

}  // namespace

Result<Box> launch(Order order, std::optional<Spare> spare, int owner) {
  Box box;
  box.exclusive = order.launch.exclusive;
  box.directory = TRY(BoxDirectory::open(std::move(order.directory), std::move(order.lock), order.launch.id));
  const Status done = start(order, std::move(spare), box, owner);
  box.started_at_ms = epoch_ms();
  if (done.ok()) return box;
  undo(box);
  return done.error();
}

}  // namespace sluicebox::keeper

#include "box/qemu_engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "box/digest.h"
#include "box/directory_disk.h"
#include "box/host_images.h"
#include "box/ingredients.h"
#include "box/initrd.h"
#include "box/kernel.h"
#include "box/qemu_boot.h"
#include "protocol/messages.h"

namespace sluicebox::box {

namespace {

using Deadline = std::chrono::steady_clock::time_point;

// QEMU's own memory beside the guest's, and its threads beside the guest's processors.
constexpr std::uint64_t kQemuMemory = std::uint64_t{192} << 20;
constexpr std::uint64_t kQemuProcesses = 96;
constexpr const char* kKeeperProgram = "/sluicebox-keeper";
constexpr std::uint64_t kQemuStorage = std::uint64_t{16} << 20;

// HOME/boxes/ID
std::string home_of(const std::string& box) {
  const std::string boxes = box.substr(0, box.rfind('/'));
  return boxes.substr(0, boxes.rfind('/'));
}

Result<UniqueFd> copy_of(const UniqueFd& fd) {
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
  return copy;
}

// `maps`: its memory is mapped from a template. What it touches of that and was never used costs a page there, too.
protocol::Launch walls_of(const BoxRecord& record, bool maps) {
  const BoxSpec& spec = record.spec;
  protocol::Launch launch;
  launch.id = record.id;
  launch.hostname = "qemu";
  launch.keep = spec.keep;
  launch.temporary_layer = true;
  launch.exclusive = true;
  launch.storage_bytes = kQemuStorage;
  launch.memory_bytes = {.value = spec.memory_bytes.value * (maps ? 2 : 1) + kQemuMemory, .asked = false};
  launch.processes = {.value = kQemuProcesses + spec.vcpus.value, .asked = false};
  launch.first_uid = record.first_uid;
  return launch;
}

// A boot from a template takes a fraction of this; one that hangs leaves time for another.
constexpr std::chrono::seconds kTrial{15};
// To write a machine down, on a slow disk; and what must be left then, for another boot.
constexpr std::chrono::seconds kSaving{10};
constexpr std::chrono::seconds kReserve{15};

}  // namespace

Engine::Means QemuEngine::means() {
  Means means;
  struct stat file{};
  if (::access(kQemuProgram, X_OK) == 0 && ::stat(kQemuProgram, &file) == 0) {
    means.qemu = kQemuProgram;
    means.identity = std::to_string(file.st_size) + "-" + std::to_string(file.st_mtim.tv_sec);
  } else {
    means.missing = Error(ErrorCode::kUnsupported, "a virtual machine needs QEMU, which is not installed")
                        .on(kQemuProgram)
                        .advise("Install it: apt-get install qemu-system-x86");
  }
  auto kernel = find_kernel(programs_);
  if (kernel.ok())
    means.kernel = kernel.value().release;
  else if (!means.missing)
    means.missing = std::move(kernel).error();
  if (!means.missing) means.no_host_root = HostImages::missing();
  return means;
}

Status QemuEngine::make_disks(BoxRecord& record, const std::string& directory, const CancelToken& cancel,
                              ProgressSink& progress) {
  if (auto missing = means().missing) return *std::move(missing);
  TRY(boot_files());
  if (record.spec.directory) {
    const std::string path = directory + "/root.raw";
    TRY(make_directory_disk(*record.spec.directory, path, record.spec.storage_asked ? record.spec.storage_bytes : 0,
                            cancel));
    DiskSpec root{.path = path, .format = "raw", .mode = DiskMode::kOverlay};
    record.spec.disks.insert(record.spec.disks.begin(), std::move(root));
  }
  if (record.spec.host) {
    const HostImages images(home_of(directory), programs_ + kKeeperProgram);
    DiskSpec root{.path = TRY(images.take(cancel, progress)), .format = "raw", .mode = DiskMode::kReadonly};
    record.spec.disks.insert(record.spec.disks.begin(), std::move(root));
  }
  record.disks = TRY(box::make_disks(record.spec, directory, *policy_));
  return ok_status();
}

Result<QemuEngine::BootFiles> QemuEngine::boot_files() {
  MutexLock lock(mutex_);
  if (!files_.kernel.valid()) {
    const GuestKernel kernel = TRY(find_kernel(programs_));
    const UniqueFd agent = TRY(walls_->agent());
    UniqueFd initrd = TRY(build_initrd(kernel, agent.get()));
    UniqueFd image = TRY(unpack_kernel(kernel));
    std::string digests = TRY(digest_of(image.get())) + " " + TRY(digest_of(initrd.get()));
    files_ = {.kernel = std::move(image), .initrd = std::move(initrd), .digests = std::move(digests)};
  }
  return BootFiles{
      .kernel = TRY(copy_of(files_.kernel)), .initrd = TRY(copy_of(files_.initrd)), .digests = files_.digests};
}

// ---------- a launch ----------
struct QemuEngine::Order {
  const BoxRecord& record;
  std::string path;  // of the box's directory
  std::vector<OpenDisk> disks;
  BootFiles files;  // of a machine that boots
  const CancelToken& cancel;
  Deadline deadline;
};

// There can be others like it.
struct QemuEngine::Likeness {
  const Templates& templates;
  Ingredients of;
  std::optional<Templates::Entry> entry;  // its disks are in place
};

Result<LaunchedBox> QemuEngine::launch(const BoxRecord& record, Home::Held held, const Origin& origin,
                                       const CancelToken& cancel, Deadline deadline) {
  const bool remembers = origin.memory != nullptr;
  if (remembers && origin.memory->qemu != means().identity) {
    return Error(ErrorCode::kUnsupported, "the snapshot's memory was written by another QEMU than the one that is here")
        .advise("Go on from its disk alone: memory: false.");
  }
  const std::string path = TRY(path_of_fd(held.directory.get()));
  const Order order{.record = record,
                    .path = path,
                    .disks = TRY(open_disks(record, path, *policy_)),
                    .files = remembers ? BootFiles{} : TRY(boot_files()),
                    .cancel = cancel,
                    .deadline = deadline};
  TrialDisks trial(record, TRY(copy_of(held.directory)));
  auto like = look_for_like_ones(order, origin, trial);
  const bool maps = remembers || (like && like->entry);
  LaunchedBox box = TRY(walls_->build_walls(walls_of(record, maps), UniqueFd(), std::move(held), cancel, deadline));
  std::optional<QemuBoot> boot;
  Status up = ok_status();
  if (remembers) {
    boot.emplace(record, box, cancel, deadline);
    up = go_on(*boot, *origin.memory, order.disks);
  } else {
    up = like ? come_up_alike(order, box, boot, *like, trial) : boot_up(order, box, boot);
  }
  if (!up.ok()) {
    Error why = boot->explain(std::move(up).error());
    box.session.reset();
    take_back({.process = std::move(box.process), .control = std::move(box.control)});
    return why;
  }
  boot->finish(box);
  return box;
}

Status QemuEngine::boot_up(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot) {
  boot.emplace(order.record, box, order.cancel, order.deadline);
  TRY(boot->start_qemu(order.files.kernel.get(), order.files.initrd.get(), order.disks));
  return boot->meet_guest();
}

// ---------- memories ----------
std::shared_ptr<QemuEngine::Kept> QemuEngine::kept(const std::string& snapshot) {
  MutexLock lock(mutex_);
  auto& entry = templates_[snapshot];
  if (!entry) entry = std::make_shared<Kept>();
  entry->used = std::chrono::steady_clock::now();
  return entry;
}

void QemuEngine::retire(std::chrono::steady_clock::duration) {
  const auto oldest = std::chrono::steady_clock::now() - kTemplateAge;
  MutexLock lock(mutex_);
  std::erase_if(templates_, [&](const auto& entry) { return entry.second->used <= oldest; });
}

void QemuEngine::close() {
  MutexLock lock(mutex_);
  templates_.clear();
}

Status QemuEngine::go_on(QemuBoot& boot, const MemoryImage& memory, const std::vector<OpenDisk>& disks) {
  const auto kept = this->kept(memory.snapshot);
  std::shared_ptr<const Template> from;
  {
    MutexLock lock(kept->making);
    if (!kept->ready) {
      if (!memory.digest.empty() && TRY(digest_of(memory.state.get())) != memory.digest)
        return Error(ErrorCode::kImageCorrupt, "a machine's memory is not what was written to it");
      kept->ready = std::make_shared<const Template>(TRY(boot.make_template(memory, disks)));
    }
    from = kept->ready;
  }
  TRY(boot.go_on_from(*from, disks));
  return boot.meet_guest();
}

// ---------- templates ----------
std::optional<QemuEngine::Likeness> QemuEngine::look_for_like_ones(const Order& order, const Origin& origin,
                                                                   TrialDisks& trial) {
  if (origin.memory != nullptr || origin.templates == nullptr || !has_like_ones(order.record, order.disks))
    return std::nullopt;
  Likeness like{.templates = *origin.templates,
                .of = ingredients_of(order.record, order.disks, order.files.digests, means().identity),
                .entry = std::nullopt};
  if (is_hopeless(like.of.key())) return std::nullopt;
  like.entry = like.templates.find(like.of);
  if (like.entry && !trial.lay_in(*like.entry).ok()) {
    trial.undo();
    like.templates.drop(*like.entry);
    like.entry.reset();
  }
  return like;
}

Status QemuEngine::come_up_alike(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot, Likeness& like,
                                 TrialDisks& trial) {
  if (like.entry) {
    if (TRY(go_on_alike(order, box, boot, like))) {
      trial.keep();
      return ok_status();
    }
    trial.undo();
  }
  TRY(boot_up(order, box, boot));
  const bool hurried = order.deadline - std::chrono::steady_clock::now() < kSaving + kReserve;
  if (hurried || is_hopeless(like.of.key())) return ok_status();
  Status kept = keep(*boot, like, order.record, trial.directory());
  if (kept.ok() || order.cancel.cancelled()) return kept;
  // It did not outlive that. Another boots, and is let be.
  give_up_on(like.of.key());
  TRY(boot->take_back(order.deadline));
  return boot_up(order, box, boot);
}

// False: the template was of no use, and the machine has to boot by itself.
Result<bool> QemuEngine::go_on_alike(const Order& order, LaunchedBox& box, std::optional<QemuBoot>& boot,
                                     Likeness& like) {
  boot.emplace(order.record, box, order.cancel, std::min(order.deadline, std::chrono::steady_clock::now() + kTrial));
  Templates::Entry& entry = *like.entry;
  const MemoryImage memory{
      .snapshot = entry.id, .qemu = means().identity, .state = std::move(entry.state), .digest = entry.state_digest};
  const auto disks = open_disks(order.record, order.path, *policy_);
  Status done = disks.ok() ? go_on(*boot, memory, disks.value()) : Status(disks.error());
  if (done.ok()) return true;
  TRY(order.cancel.check());
  like.templates.drop(entry);
  // One that was damaged is made anew; what was whole and did not work would not the next time.
  if (done.error().code != ErrorCode::kImageCorrupt) give_up_on(entry.key);
  TRY(boot->take_back(order.deadline));
  return false;
}

// The machine that has just booted becomes the template of those like it. That this could not be is nobody's trouble;
// an error: the machine may be lost.
Status QemuEngine::keep(QemuBoot& boot, const Likeness& like, const BoxRecord& record, int directory) {
  if (!boot.can_be_copied()) return ok_status();
  auto begun = like.templates.make(like.of, record.spec.memory_bytes.value);
  if (!begun.ok() || !begun.value()) return ok_status();
  Templates::Making& making = *begun.value();
  const auto state = making.state();
  if (!state.ok()) return ok_status();
  const auto copy_disks = [&] { return making.add_disks(directory, record.disks); };
  Status saved = TRY(boot.save(state.value(), copy_disks, std::chrono::steady_clock::now() + kSaving));
  if (saved.ok()) saved = making.finish(like.of);
  return ok_status();
}

void QemuEngine::give_up_on(const std::string& key) {
  MutexLock lock(mutex_);
  hopeless_.insert(key);
}

bool QemuEngine::is_hopeless(const std::string& key) {
  MutexLock lock(mutex_);
  return hopeless_.contains(key);
}

}  // namespace sluicebox::box

#include "box/qemu_engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "box/digest.h"
#include "box/directory_disk.h"
#include "box/host_clock.h"
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
constexpr std::uint64_t kQemuStorage = std::uint64_t{16} << 20;

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
  launch.storage_bytes = kQemuStorage;
  launch.memory_bytes = {.value = spec.memory_bytes.value * (maps ? 2 : 1) + kQemuMemory, .asked = false};
  launch.processes = {.value = kQemuProcesses + spec.vcpus.value, .asked = false};
  launch.first_uid = record.first_uid;
  return launch;
}

// ---------- templates ----------
// A boot from one takes a fraction of this; one that hangs leaves time for another.
constexpr std::chrono::seconds kTrial{15};
// To write it down, on a slow disk; and what must be left then, for another boot.
constexpr std::chrono::seconds kSaving{10};
constexpr std::chrono::seconds kReserve{15};
// Read into this process's memory at once.
constexpr std::uint64_t kMostMemory = std::uint64_t{1} << 30;
constexpr const char* kAside = ".fresh";
constexpr const char* kBooted = ".booted";

// Of a machine whose root its disks hold as they were named: what is made for the box alone is like no other's.
// Nor is a machine whose memory would take longer to read than to boot, or whose clock nothing is known of.
bool has_like_ones(const BoxRecord& record, const std::vector<OpenDisk>& disks) {
  const auto is_direct = [](const DiskSpec& disk) { return disk.mode == DiskMode::kDirect; };
  const auto is_file = [](const OpenLayer& layer) {
    struct stat facts{};
    return ::fstat(layer.file.get(), &facts) == 0 && S_ISREG(facts.st_mode);
  };
  return !record.spec.directory && record.spec.memory_bytes.value <= kMostMemory && time_stamp_khz().has_value() &&
         std::none_of(record.spec.disks.begin(), record.spec.disks.end(), is_direct) &&
         std::all_of(disks.begin(), disks.end(), [&](const OpenDisk& disk) {
           return std::all_of(disk.layers.begin(), disk.layers.end(), is_file);
         });
}

// The overlays as the template has them take the place of the box's own, which are put aside.
Status lay_in(const Templates::Entry& entry, const BoxRecord& record, int directory) {
  if (entry.disk_digests.size() != record.disks.size()) return Error(ErrorCode::kIo, "a template has other disks");
  for (std::size_t i = 0; i < record.disks.size(); ++i) {
    const std::string& overlay = record.disks[i].overlay;
    if (!overlay.empty()) TRY(Templates::copy_disk(entry, i, directory, overlay + kBooted));
  }
  // At any moment there is one of that name, and the box starts from it.
  for (const DiskRecord& disk : record.disks) {
    if (disk.overlay.empty()) continue;
    if (::linkat(directory, disk.overlay.c_str(), directory, (disk.overlay + kAside).c_str(), 0) != 0 ||
        ::renameat(directory, (disk.overlay + kBooted).c_str(), directory, disk.overlay.c_str()) != 0)
      return os_error(errno, "cannot put a template's disk in place", disk.overlay);
  }
  return ok_status();
}

// The box's own are there again, or not needed any more.
void lay_out(const BoxRecord& record, int directory, bool back) {
  for (const DiskRecord& disk : record.disks) {
    if (disk.overlay.empty()) continue;
    ::unlinkat(directory, (disk.overlay + kBooted).c_str(), 0);
    const std::string aside = disk.overlay + kAside;
    if (back)
      ::renameat(directory, aside.c_str(), directory, disk.overlay.c_str());
    else
      ::unlinkat(directory, aside.c_str(), 0);
  }
}

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
  return means;
}

Status QemuEngine::make_disks(BoxRecord& record, const std::string& directory) {
  if (auto missing = means().missing) return *std::move(missing);
  TRY(boot_files());
  if (record.spec.directory) {
    const std::string path = directory + "/root.raw";
    TRY(make_directory_disk(*record.spec.directory, path, record.spec.storage_asked ? record.spec.storage_bytes : 0));
    DiskSpec root{.path = path, .format = "raw", .mode = DiskMode::kOverlay};
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

// The machine that has just booted becomes the template of those like it. That this could not be is nobody's trouble;
// an error: the machine may be lost.
Status QemuEngine::keep(QemuBoot& boot, const Templates& templates, const Ingredients& of, const BoxRecord& record,
                        int directory) {
  if (!boot.can_be_copied()) return ok_status();
  auto begun = templates.make(of, record.spec.memory_bytes.value);
  if (!begun.ok() || !begun.value()) return ok_status();
  Templates::Making& making = *begun.value();
  const auto state = making.state();
  if (!state.ok()) return ok_status();
  const auto copy_disks = [&]() -> Status {
    for (const DiskRecord& disk : record.disks) {
      if (disk.overlay.empty())
        making.add_no_disk();
      else
        TRY(making.add_disk(directory, disk.overlay));
    }
    return ok_status();
  };
  Status saved = TRY(boot.save(state.value(), copy_disks, std::chrono::steady_clock::now() + kSaving));
  if (saved.ok()) saved = making.finish(of);
  return ok_status();
}

// Nothing: the template was of no use, and the machine has to boot by itself.
std::optional<Status> QemuEngine::go_on_from(QemuBoot& boot, const Templates& templates, Templates::Entry entry,
                                             const BoxRecord& record, const std::string& directory,
                                             const CancelToken& cancel, Deadline deadline) {
  const MemoryImage memory{
      .snapshot = entry.id, .qemu = means().identity, .state = std::move(entry.state), .digest = entry.state_digest};
  const auto disks = open_disks(record, directory, *policy_);
  Status done = disks.ok() ? go_on(boot, memory, disks.value()) : Status(disks.error());
  if (done.ok() || cancel.cancelled()) return done;
  templates.drop(entry);
  // One that was damaged is made anew; what was whole and did not work would not the next time.
  if (done.error().code != ErrorCode::kImageCorrupt) give_up_on(entry.key);
  if (Status back = boot.take_back(deadline); !back.ok()) return back;
  return std::nullopt;
}

void QemuEngine::give_up_on(const std::string& key) {
  MutexLock lock(mutex_);
  hopeless_.insert(key);
}

bool QemuEngine::is_hopeless(const std::string& key) {
  MutexLock lock(mutex_);
  return hopeless_.contains(key);
}

Result<LaunchedBox> QemuEngine::launch(const BoxRecord& record, Home::Held held, const Origin& origin,
                                       const CancelToken& cancel, Deadline deadline) {
  const bool remembers = origin.memory != nullptr;
  if (remembers && origin.memory->qemu != means().identity) {
    return Error(ErrorCode::kUnsupported, "the snapshot's memory was written by another QEMU than the one that is here")
        .advise("Go on from its disk alone: memory: false.");
  }
  BootFiles files;
  if (!remembers) files = TRY(boot_files());
  const std::string path = TRY(path_of_fd(held.directory.get()));
  const UniqueFd directory = TRY(copy_of(held.directory));
  const std::vector<OpenDisk> disks = TRY(open_disks(record, path, *policy_));
  std::optional<Ingredients> of;
  std::optional<Templates::Entry> entry;
  // What a process that was killed in the midst of a trial left.
  lay_out(record, directory.get(), false);
  if (!remembers && origin.templates != nullptr && has_like_ones(record, disks)) {
    of = ingredients_of(record, disks, files.digests, means().identity);
    if (is_hopeless(of->key())) of.reset();
    if (of) entry = origin.templates->find(*of);
    if (entry && !lay_in(*entry, record, directory.get()).ok()) {
      lay_out(record, directory.get(), true);
      origin.templates->drop(*entry);
      entry.reset();
    }
  }
  LaunchedBox box =
      TRY(walls_->build_walls(walls_of(record, remembers || entry), UniqueFd(), std::move(held), cancel, deadline));

  std::optional<QemuBoot> boot;
  const auto bring_up = [&]() -> Status {
    if (entry) {
      boot.emplace(record, box, cancel, std::min(deadline, std::chrono::steady_clock::now() + kTrial));
      auto done = go_on_from(*boot, *origin.templates, *std::move(entry), record, path, cancel, deadline);
      lay_out(record, directory.get(), !done);
      if (done) return *std::move(done);
    }
    const auto boot_up = [&]() -> Status {
      boot.emplace(record, box, cancel, deadline);
      TRY(boot->start_qemu(files.kernel.get(), files.initrd.get(), disks));
      return boot->meet_guest();
    };
    if (remembers) {
      boot.emplace(record, box, cancel, deadline);
      return go_on(*boot, *origin.memory, disks);
    }
    TRY(boot_up());
    const bool hurried = deadline - std::chrono::steady_clock::now() < kSaving + kReserve;
    if (!of || hurried || is_hopeless(of->key())) return ok_status();
    Status kept = keep(*boot, *origin.templates, *of, record, directory.get());
    if (kept.ok() || cancel.cancelled()) return kept;
    // It did not outlive that. Another boots, and is let be.
    give_up_on(of->key());
    TRY(boot->take_back(deadline));
    return boot_up();
  };
  if (Status done = bring_up(); !done.ok()) {
    Error why = boot->explain(std::move(done).error());
    box.session.reset();
    take_back({.process = std::move(box.process), .control = std::move(box.control)});
    return why;
  }
  boot->finish(box);
  return box;
}

}  // namespace sluicebox::box

#include "keeper/host_image.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "keeper/host_list.h"
#include "walls/failure.h"
#include "walls/host_view.h"
#include "walls/mount.h"

namespace sluicebox::keeper {

namespace {

// Its /etc and its links: small files.
constexpr const char* kViewBytes = "67108864";
// The image, as mkfs.erofs is to open it.
constexpr const char* kImage = "/proc/self/fd/3";

Status write_text(const char* path, std::string_view text) {
  const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file.valid() || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return walls::failure(errno, "map the user of a mount namespace", path);
  return ok_status();
}

// The right to mount, in a mount namespace that nobody else sees; the user stays who it is.
Status take_mounts() {
  const std::string uid = "0 " + std::to_string(::geteuid()) + " 1";
  const std::string gid = "0 " + std::to_string(::getegid()) + " 1";
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
    return walls::failure(errno, "make a user and a mount namespace to look at the host's programs");
  TRY(write_text("/proc/self/setgroups", "deny"));
  TRY(write_text("/proc/self/uid_map", uid));
  TRY(write_text("/proc/self/gid_map", gid));
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return walls::failure(errno, "make the mounts private");
  return ok_status();
}

Status make_view(const std::string& stage, const std::string& home) {
  TRY(take_mounts());
  const walls::MountOption options[] = {{"size", kViewBytes}, {"mode", "755"}};
  const UniqueFd view = TRY(walls::new_filesystem("tmpfs", options, walls::kNoSuidNoDev));
  const UniqueFd place(::open(stage.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!place.valid()) return walls::failure(errno, "open the place of the host's view", stage);
  TRY(walls::attach(view.get(), place.get()));
  TRY(walls::show_host(view.get()));
  return walls::hide_home(view.get(), home);
}

// Does not return where it succeeds.
Status become_mkfs(const std::string& program, const std::string& stage, const HostList& list) {
  // Numbers: no image of the same files differs from another by chance. One id, for those of the host are nobody's
  // there. Packed by lz4 it is half as large and as soon written; a guest that reads a file for the first time waits
  // half as long again. Extended attributes would give programs rights that they do not have in a box of namespaces
  // either.
  std::vector<std::string> words = {program, "--quiet", "--all-root",
                                    "-x-1",  "-zlz4",   "-U00000000-0000-0000-0000-000000000000"};
  for (const std::string& path : list.left_out) words.push_back("--exclude-path=" + path);
  words.insert(words.end(), {kImage, stage});
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::array<char*, 1> environment = {nullptr};
  // Whoever asked for the image and was killed wants none.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::execve(program.c_str(), argv.data(), environment.data());
  return walls::failure(errno, "run mkfs.erofs", program);
}

int complain(const Error& error) {
  std::fprintf(stderr, "%s%s%s\n", error.message.c_str(), error.path.empty() ? "" : ": ", error.path.c_str());
  return 1;
}

}  // namespace

int do_host_job(std::span<char*> arguments) {
  const bool image = arguments.size() == 5 && std::string_view(arguments[0]) == kHostImageJob;
  if (!image && (arguments.size() != 3 || std::string_view(arguments[0]) != kHostListJob))
    return complain(Error(ErrorCode::kInvalidArgument, "the keeper was asked for no job that it knows"));
  // Of whoever started it, but for the image.
  ::close_range(image ? 4 : 3, ~0U, 0);
  const std::string stage = arguments[1];
  if (Status made = make_view(stage, arguments[2]); !made.ok()) return complain(made.error());
  const auto list = list_host(stage);
  if (!list.ok()) return complain(list.error());
  if (!image) {
    std::printf("%s %llu\n", list.value().key.c_str(), static_cast<unsigned long long>(list.value().bytes));
    return 0;
  }
  if (list.value().key != arguments[3]) return kHostChanged;
  return complain(become_mkfs(arguments[4], stage, list.value()).error());
}

}  // namespace sluicebox::keeper

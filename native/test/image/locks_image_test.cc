#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/unique_fd.h"
#include "image/locks.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::TempDir;

UniqueFd open_image(const std::string& path) { return UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)); }

// Which of the protocol's bytes anybody but `fd` holds.
std::vector<int> held_bytes(int fd) {
  std::vector<int> bytes;
  for (const int base : {100, 200}) {
    for (int i = 0; i < 4; ++i) {
      struct flock lock = {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = base + i;
      lock.l_len = 1;
      if (::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) bytes.push_back(base + i);
    }
  }
  return bytes;
}

struct LockedImage {
  TempDir directory;
  std::string path = directory.file("image.qcow2");
  LockedImage() { testing::qemu_img({"create", "-q", "-f", "qcow2", path, "1M"}); }
};

// A qemu-io that has the image open, and tells so, until it is destroyed.
class QemuHolds {
 public:
  QemuHolds(const std::string& path, bool writable) {
    int in[2], out[2];
    if (::pipe2(in, 0) != 0 || ::pipe2(out, 0) != 0) std::abort();
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::dup2(out[1], 2);
      for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
      if (writable) {
        ::execlp("qemu-io", "qemu-io", "-f", "qcow2", path.c_str(), nullptr);
      } else {
        ::execlp("qemu-io", "qemu-io", "-r", "-f", "qcow2", path.c_str(), nullptr);
      }
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    in_ = UniqueFd(in[1]);
    out_ = UniqueFd(out[0]);
    // The answer to a command comes after the image was opened and locked.
    const char command[] = "length\n";
    if (::write(in_.get(), command, sizeof command - 1) < 0) std::abort();
    std::string said;
    char buffer[256];
    while (said.find("MiB") == std::string::npos && said.find("can't") == std::string::npos) {
      const ssize_t got = ::read(out_.get(), buffer, sizeof buffer);
      if (got <= 0) break;
      said.append(buffer, static_cast<std::size_t>(got));
    }
    opened_ = said.find("MiB") != std::string::npos;
  }
  ~QemuHolds() {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  QemuHolds(const QemuHolds&) = delete;
  QemuHolds& operator=(const QemuHolds&) = delete;
  bool opened() const { return opened_; }

 private:
  pid_t child_ = -1;
  UniqueFd in_, out_;
  bool opened_ = false;
};

}  // namespace

TEST_CASE("I39: the bytes that are locked are those of QEMU's protocol") {
  const LockedImage image;
  const UniqueFd observer = open_image(image.path);
  {
    const UniqueFd reader = open_image(image.path);
    CHECK(lock_image(reader.get(), LockMode::kReader, image.path).value() == LockOutcome::kHeld);
    CHECK(held_bytes(observer.get()) == std::vector{100, 201, 203});
  }
  CHECK(held_bytes(observer.get()).empty());
  const UniqueFd writer = open_image(image.path);
  CHECK(lock_image(writer.get(), LockMode::kWriter, image.path).ok());
  CHECK(held_bytes(observer.get()) == std::vector{100, 101, 103, 201, 203});
}

TEST_CASE("I40: in one process readers share, and of two writers one is refused and holds nothing") {
  const LockedImage image;
  const UniqueFd first = open_image(image.path);
  const UniqueFd second = open_image(image.path);
  const UniqueFd third = open_image(image.path);
  REQUIRE(lock_image(first.get(), LockMode::kReader, image.path).ok());
  REQUIRE(lock_image(second.get(), LockMode::kReader, image.path).ok());
  CHECK(lock_image(third.get(), LockMode::kWriter, image.path).error().code == ErrorCode::kImageLocked);
  CHECK(held_bytes(first.get()) == std::vector{100, 201, 203});  // second's
}

TEST_CASE("I40: a writer refuses readers and writers of its process until it is closed") {
  const LockedImage image;
  UniqueFd writer = open_image(image.path);
  const UniqueFd other = open_image(image.path);
  REQUIRE(lock_image(writer.get(), LockMode::kWriter, image.path).ok());
  for (const LockMode mode : {LockMode::kReader, LockMode::kWriter}) {
    const Error error = lock_image(other.get(), mode, image.path).error();
    CHECK(error.code == ErrorCode::kImageLocked);
    CHECK(error.message.find("\"") != std::string::npos);
    CHECK_FALSE(error.hint.empty());
  }
  CHECK(held_bytes(writer.get()).empty());
  writer.reset();
  CHECK(lock_image(other.get(), LockMode::kWriter, image.path).ok());
}

TEST_CASE("I39: a lock survives that another descriptor of the file is closed") {
  const LockedImage image;
  const UniqueFd writer = open_image(image.path);
  REQUIRE(lock_image(writer.get(), LockMode::kWriter, image.path).ok());
  open_image(image.path).reset();
  const UniqueFd other = open_image(image.path);
  CHECK_FALSE(lock_image(other.get(), LockMode::kReader, image.path).ok());
}

TEST_CASE("I39: an image that QEMU has open is refused, by what QEMU does with it") {
  const LockedImage image;
  const UniqueFd ours = open_image(image.path);
  {
    const QemuHolds writer(image.path, true);
    REQUIRE(writer.opened());
    CHECK(held_bytes(ours.get()) == std::vector{100, 101, 103, 201, 203});
    const Error error = lock_image(ours.get(), LockMode::kReader, image.path).error();
    CHECK(error.code == ErrorCode::kImageLocked);
    CHECK(error.message.find("shared \"write\"") != std::string::npos);
    CHECK(lock_image(ours.get(), LockMode::kWriter, image.path).error().code == ErrorCode::kImageLocked);
  }
  const QemuHolds reader(image.path, false);
  REQUIRE(reader.opened());
  CHECK(lock_image(ours.get(), LockMode::kReader, image.path).ok());
}

TEST_CASE("I39: qemu-img and qemu-io refuse an image that is locked here, and share it with a reader") {
  const LockedImage image;
  UniqueFd ours = open_image(image.path);
  REQUIRE(lock_image(ours.get(), LockMode::kWriter, image.path).ok());
  CHECK(testing::qemu_img({"info", image.path}).exit_code == 1);
  CHECK(testing::qemu_img({"check", image.path}).exit_code == 1);
  CHECK(testing::qemu_img({"info", "-U", image.path}).exit_code == 0);
  CHECK(testing::qemu_io(image.path, "qcow2", {"read 0 512"}).exit_code == 1);
  ours = open_image(image.path);
  REQUIRE(lock_image(ours.get(), LockMode::kReader, image.path).ok());
  CHECK(testing::qemu_img({"check", image.path}).exit_code == 0);
  CHECK(testing::qemu_io(image.path, "qcow2", {"write 0 512"}).exit_code == 1);
}

TEST_CASE("I39: an exclusive lock of another kind of program is named by its byte") {
  const LockedImage image;
  const UniqueFd foreign = open_image(image.path);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 0;
  REQUIRE(::fcntl(foreign.get(), F_OFD_SETLK, &lock) == 0);
  const UniqueFd ours = open_image(image.path);
  const Error error = lock_image(ours.get(), LockMode::kReader, image.path).error();
  CHECK(error.code == ErrorCode::kImageLocked);
  CHECK(error.message.find("byte 100") != std::string::npos);
}

TEST_CASE("I39: a lock dies with the process that held it") {
  const LockedImage image;
  int ready[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  const UniqueFd ready_in(ready[0]);
  UniqueFd ready_out(ready[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    const UniqueFd theirs = open_image(image.path);
    const bool locked = lock_image(theirs.get(), LockMode::kWriter, image.path).ok();
    const char answer = locked ? 'y' : 'n';
    if (::write(ready_out.get(), &answer, 1) == 1) ::pause();
    ::_exit(0);
  }
  ready_out.reset();
  char answer = 0;
  REQUIRE(::read(ready_in.get(), &answer, 1) == 1);
  CHECK(answer == 'y');
  const UniqueFd ours = open_image(image.path);
  CHECK_FALSE(lock_image(ours.get(), LockMode::kReader, image.path).ok());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(lock_image(ours.get(), LockMode::kWriter, image.path).ok());
}

}  // namespace sluicebox::image

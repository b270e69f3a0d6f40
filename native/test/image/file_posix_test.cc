#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "image/file.h"
#include "image/open_file.h"
#include "image/printable.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::TempDir;

std::unique_ptr<PosixFile> open_new(const std::string& path) {
  return std::make_unique<PosixFile>(UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)), path);
}

Result<FoundFile> find_as_caller(const std::string& path) {
  const PathPolicy policy({}, false);
  return FoundFile::find(path, NamedBy{.caller = true}, policy);
}

Result<FoundFile> find_as_image(const std::string& path, const std::string& directory) {
  const PathPolicy policy({}, false);
  const UniqueFd own(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  return FoundFile::find(path, NamedBy{.caller = false, .own_directories = {own.get()}}, policy);
}

}  // namespace

TEST_CASE("a file reads back what was written, short past its end and empty far behind") {
  const TempDir directory;
  const auto file = open_new(directory.file("a"));
  REQUIRE(file->write_at(1000, as_bytes("hello")).ok());
  CHECK(file->size().value() == 1005);
  std::array<std::byte, 16> out = {};
  CHECK(file->read_at(1000, out).value() == 5);
  CHECK(std::memcmp(out.data(), "hello", 5) == 0);
  CHECK(file->read_at(4096, out).value() == 0);
  CHECK(file->read_at(UINT64_MAX, out).value() == 0);
}

TEST_CASE("I38: a failed read, write, truncate and allocate name the file and the offset") {
  const TempDir directory;
  const std::string path = directory.file("a");
  open_new(path);
  PosixFile read_only(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  const Status refused = read_only.write_at(512, as_bytes("x"));
  CHECK(refused.error().code == ErrorCode::kIo);
  CHECK(refused.error().os_error == EBADF);
  CHECK(refused.error().path == path);
  CHECK(refused.error().offset == 512);
  const auto file = open_new(path);
  CHECK(file->write_at(UINT64_MAX - 1, as_bytes("xyz")).error().code == ErrorCode::kNoSpace);
  CHECK(file->truncate(UINT64_MAX).error().code == ErrorCode::kNoSpace);
  CHECK(file->allocate(UINT64_MAX, 2).error().code == ErrorCode::kNoSpace);
}

TEST_CASE("I38: a write cut short by a limit is completed or fails typed, at the offset where it stopped") {
  const TempDir directory;
  const auto file = open_new(directory.file("a"));
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const struct rlimit small = {.rlim_cur = 1000, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::vector<std::byte> data(4096, std::byte{1});
  const Status outcome = file->write_at(0, data);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, old_handler);
  CHECK(outcome.error().code == ErrorCode::kNoSpace);
  CHECK(outcome.error().offset == 1000);
}

TEST_CASE("extents tell data from holes, and all past the end is a hole") {
  const TempDir directory;
  const auto file = open_new(directory.file("a"));
  REQUIRE(file->write_at(1 << 20, std::vector<std::byte>(65536, std::byte{1})).ok());
  REQUIRE(file->truncate(4 << 20).ok());
  const FileExtent first = file->extent_at(0, 8 << 20).value();
  CHECK_FALSE(first.data);
  CHECK(first.length == 1 << 20);
  const FileExtent second = file->extent_at(1 << 20, 8 << 20).value();
  CHECK(second.data);
  CHECK(second.length == 65536);
  CHECK(file->extent_at((1 << 20) + 100, 50).value().length == 50);
  const FileExtent rest = file->extent_at((1 << 20) + 65536, 64 << 20).value();
  CHECK_FALSE(rest.data);
  CHECK(rest.length == 64 << 20);
}

TEST_CASE("zeros take no writing where the file system can do without, and the space stays either way") {
  const TempDir directory;
  const auto file = open_new(directory.file("a"));
  REQUIRE(file->write_at(0, std::vector<std::byte>(3 << 20, std::byte{1})).ok());
  REQUIRE(file->sync().ok());
  const std::uint64_t space = file->allocated_bytes().value();
  std::vector<std::byte> bytes(3 << 20);
  if (file->zero((1 << 20) + 100, 1 << 20).value()) {
    REQUIRE(file->read_at(0, bytes).value() == bytes.size());
    CHECK(bytes[(1 << 20) + 99] == std::byte{1});
    CHECK(all_zero(Bytes(bytes).subspan((1 << 20) + 100, 1 << 20)));
    CHECK(bytes[(2 << 20) + 100] == std::byte{1});
    CHECK(file->allocated_bytes().value() >= space);
  }
  // What there is not stays so.
  REQUIRE(file->zero(2 << 20, 64 << 20).ok());
  CHECK(file->size().value() == 3 << 20);
  PosixFile read_only(UniqueFd(::open(directory.file("a").c_str(), O_RDONLY | O_CLOEXEC)), "a");
  const Result<bool> refused = read_only.zero(0, 512);
  CHECK((!refused.ok() || !refused.value()));
}

TEST_CASE("a sync error stays: no later write, sync or truncate succeeds") {
  // A pipe's fdatasync fails with EINVAL, which stands for any failure.
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]);
  PosixFile file(UniqueFd(ends[1]), "pipe");
  CHECK(file.sync().error().os_error == EINVAL);
  CHECK(file.sync().error().os_error == EINVAL);
  CHECK(file.write_at(0, as_bytes("x")).error().os_error == EINVAL);
  CHECK(file.truncate(0).error().os_error == EINVAL);
}

TEST_CASE("I42: directories, FIFOs, sockets and devices are refused by kind, at once") {
  const TempDir directory;
  const std::string fifo = directory.file("fifo");
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const std::string socket_path = directory.file("socket");
  const UniqueFd socket_fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  // The sockaddr family of structs is made to be cast.
  REQUIRE(::bind(socket_fd.get(), reinterpret_cast<struct sockaddr*>(&address), sizeof address) == 0);
  for (const std::string& path : {fifo, socket_path, directory.path(), std::string("/dev/null")}) {
    CAPTURE(path);
    CHECK(find_as_caller(path).error().code == ErrorCode::kInvalidArgument);
    CHECK_FALSE(find_as_caller(path).error().hint.empty());
    CHECK(find_as_image(path, "/").error().code == ErrorCode::kPathRefused);
  }
}

TEST_CASE("a missing image is not found; a name with a NUL or no characters is refused") {
  const TempDir directory;
  CHECK(find_as_caller(directory.file("none")).error().code == ErrorCode::kImageNotFound);
  CHECK(find_as_caller("").error().code == ErrorCode::kInvalidArgument);
  CHECK(find_as_caller(std::string("a\0b", 3)).error().code == ErrorCode::kInvalidArgument);
  CHECK(find_as_image(std::string("a\0b", 3), "/").error().code == ErrorCode::kPathRefused);
}

TEST_CASE("I41: the file that was judged is the one that is opened, although its name leads elsewhere by then") {
  const TempDir directory;
  std::ofstream(directory.file("a")) << "judged";
  std::ofstream(directory.file("b")) << "swapped";
  const FoundFile found = find_as_image(directory.file("a"), directory.path()).value();
  std::filesystem::rename(directory.file("b"), directory.file("a"));
  const auto file = found.open(false).value();
  std::array<std::byte, 6> out = {};
  REQUIRE(file->read_at(0, out).value() == 6);
  CHECK(std::memcmp(out.data(), "judged", 6) == 0);
}

TEST_CASE("control characters, quotes and length are tamed in messages") {
  CHECK(printable("plain.qcow2") == "'plain.qcow2'");
  CHECK(printable("a\x1b[31m\n'") == "'a\\x1b[31m\\x0a\\''");
  CHECK(printable(std::string_view("a\0b", 3)) == "'a\\x00b'");
  CHECK(printable(std::string(5000, 'x')).size() < 1100);
  const Error error = find_as_caller("/none/a\nb").error();
  CHECK(error.message.find('\n') == std::string::npos);
}

}  // namespace sluicebox::image

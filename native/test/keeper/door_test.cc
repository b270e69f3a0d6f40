// Who comes to a keeper's socket, and a box whose owner left it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

#include "test/keeper/box_fixture.h"

using namespace sluicebox;
using namespace sluicebox::test;
using protocol::Type;

namespace {

UniqueFd come_to(const std::string& directory) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory + "/keeper.sock";
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) socket.reset();
  return socket;
}

struct Word {
  bool hung_up = false;
  Type type{};
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};
Word hear_word(int socket) {
  REQUIRE(await(socket, POLLIN));
  std::vector<std::byte> payload(protocol::kMaxPayload);
  auto frame = protocol::receive_frame(socket, payload);
  if (!frame.ok()) return {.hung_up = true, .type = {}, .payload = {}, .descriptors = {}};
  payload.resize(frame.value().length);
  return {.hung_up = false,
          .type = frame.value().header.type,
          .payload = std::move(payload),
          .descriptors = std::move(frame.value().descriptors)};
}

void say_word(int socket, Type type, Bytes payload, std::span<const int> descriptors = {}) {
  REQUIRE(protocol::send_frame(socket, {.type = type}, payload, descriptors).ok());
}

protocol::Encoded hello_of(std::uint16_t version = protocol::kVersion) {
  return protocol::encode(protocol::Hello{.version = version, .leash = false});
}

struct Inhabited {
  Home home;
  std::string directory = home.make_box();
  BoxUnderTest box{directory};
  Inhabited() {
    const Answer& answer = box.launch();
    INFO(answer.failed.message << " " << answer.failed.path << " " << answer.failed.hint);
    REQUIRE(answer.launched);
  }
};

}  // namespace

TEST_CASE("B42: a keeper's socket is its user's alone") {
  Inhabited running;
  struct stat facts{};
  REQUIRE(::stat((running.directory + "/keeper.sock").c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0600);
  if (!as_root()) return;
  // Even where every name on the way was opened to all.
  ::chmod(running.home.path().c_str(), 0777);
  for (std::string path = running.directory; path.size() >= running.home.path().size();
       path = path.substr(0, path.rfind('/')))
    ::chmod(path.c_str(), 0777);
  ::chmod((running.directory + "/keeper.sock").c_str(), 0666);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    if (::setresgid(12345, 12345, 12345) != 0 || ::setresuid(12345, 12345, 12345) != 0) ::_exit(2);
    const UniqueFd socket = come_to(running.directory);
    if (!socket.valid()) ::_exit(3);
    const auto words = hello_of();
    (void)protocol::send_frame(socket.get(), {.type = Type::kAttach}, words);
    std::array<std::byte, protocol::kMaxPayload> buffer;
    ::_exit(await(socket.get(), POLLIN) && !protocol::receive_frame(socket.get(), buffer).ok() ? 0 : 4);
  }
  int status = 0;
  REQUIRE(::waitpid(stranger, &status, 0) == stranger);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(running.box.sh("echo on") == "on\n");
}

TEST_CASE("B42: who says what nobody says is dropped, and the box and its owner do not feel it") {
  Inhabited running;
  const std::string words[] = {"", "x", std::string(40000, 'x'), std::string(16, '\0'),
                               std::string("\xff\xff\xff\xff") + std::string(12, '\1')};
  for (const std::string& word : words) {
    const UniqueFd visitor = come_to(running.directory);
    REQUIRE(visitor.valid());
    (void)::send(visitor.get(), word.data(), word.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (word.size() > 16 || word.size() == 1) CHECK(hear_word(visitor.get()).hung_up);
  }
  const UniqueFd visitor = come_to(running.directory);
  say_word(visitor.get(), Type::kAdopt, hello_of(protocol::kVersion + 1));
  CHECK(hear_word(visitor.get()).type == Type::kRefused);
  say_word(visitor.get(), Type::kAdopt, hello_of());
  const Word refused = hear_word(visitor.get());
  CHECK(refused.type == Type::kRefused);
  CHECK(protocol::decode_launch_failed(refused.payload).value().message == "another process runs this box");
  say_word(visitor.get(), Type::kLeave, protocol::encode(protocol::Leave{}));
  CHECK(hear_word(visitor.get()).hung_up);
  CHECK(running.box.sh("echo on") == "on\n");
  CHECK(running.box.stop().asked);
}

TEST_CASE("B42: more visitors than a keeper lets in wait outside until one goes") {
  Inhabited running;
  std::vector<UniqueFd> visitors;
  for (int i = 0; i < 64; ++i) visitors.push_back(come_to(running.directory));
  const UniqueFd late = come_to(running.directory);
  say_word(late.get(), Type::kAdopt, hello_of());
  CHECK(running.box.sh("echo on") == "on\n");
  visitors.clear();
  CHECK(hear_word(late.get()).type == Type::kRefused);
}

TEST_CASE("B10: what an owner leaves is given to who adopts the box, and whose hang-up then ends it") {
  Inhabited running;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  UniqueFd read(ends[0]);
  const UniqueFd write(ends[1]);
  const int left[] = {read.get()};
  const auto leave =
      protocol::encode(protocol::Leave{.state = "the owner's own", .descriptors = {protocol::Left::kHold}});
  running.box.send_to_keeper(Type::kLeave, leave, left);
  CHECK(running.box.await_word() == Type::kLeft);
  read.reset();
  running.box.hang_up();
  CHECK(running.box.sh("echo on") == "on\n");
  UniqueFd heir = come_to(running.directory);
  say_word(heir.get(), Type::kAdopt, hello_of());
  const Word given = hear_word(heir.get());
  REQUIRE(given.type == Type::kGiven);
  CHECK(protocol::decode_given(given.payload).value().state == "the owner's own");
  CHECK(protocol::decode_given(given.payload).value().started_at_ms > 0);
  REQUIRE(given.descriptors.size() == 1);
  REQUIRE(::write(write.get(), "x", 1) == 1);
  char got = 0;
  CHECK(::read(given.descriptors[0].get(), &got, 1) == 1);
  const UniqueFd second = come_to(running.directory);
  say_word(second.get(), Type::kAdopt, hello_of());
  CHECK(hear_word(second.get()).type == Type::kRefused);
  const UniqueFd first = running.box.open_pid1();
  heir.reset();
  CHECK(await(first.get(), POLLIN));
  CHECK(running.box.await_keeper() == 0);
}

TEST_CASE("B10: a left box is over when what was to be its last word comes") {
  Inhabited running;
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  UniqueFd theirs(ends[0]);
  const UniqueFd ours(ends[1]);
  int noise[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, noise) == 0);
  UniqueFd drained(noise[0]);
  const UniqueFd talks(noise[1]);
  const int left[] = {theirs.get(), drained.get()};
  const auto leave =
      protocol::encode(protocol::Leave{.state = {}, .descriptors = {protocol::Left::kLast, protocol::Left::kDrain}});
  running.box.send_to_keeper(Type::kLeave, leave, left);
  CHECK(running.box.await_word() == Type::kLeft);
  theirs.reset();
  drained.reset();
  running.box.hang_up();
  // Far more than a socket holds.
  const std::string much(std::size_t{4} << 20, 'x');
  std::size_t sent = 0;
  while (sent < much.size()) {
    REQUIRE(await(talks.get(), POLLOUT));
    const ssize_t put = ::send(talks.get(), much.data() + sent, much.size() - sent, MSG_DONTWAIT);
    REQUIRE(put > 0);
    sent += static_cast<std::size_t>(put);
  }
  CHECK(running.box.sh("echo on") == "on\n");
  const UniqueFd first = running.box.open_pid1();
  REQUIRE(::write(ours.get(), "x", 1) == 1);
  CHECK(await(first.get(), POLLIN));
  CHECK(running.box.await_keeper() == 0);
  CHECK_FALSE(exists(running.directory));
}

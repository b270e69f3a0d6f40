#include "test/keeper/box_fixture.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace sluicebox::test {

namespace {

std::string random_id() {
  std::random_device random;
  std::ostringstream text;
  text << "test" << std::hex << random() << random() << random();
  return text.str();
}

// A copy that nobody can change, as the owner makes one of the agent.
UniqueFd sealed_copy(const std::string& path) {
  UniqueFd memory(::memfd_create("agent", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  while (::sendfile(memory.get(), file.get(), nullptr, 1 << 20) > 0) {
  }
  REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
  return memory;
}

}  // namespace

Home::Home() {
  std::string name = "/tmp/sluicebox-keeper-XXXXXX";
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

Home::~Home() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Home::make_box() const {
  const std::string directory = path_ + "/" + random_id();
  REQUIRE(::mkdir(directory.c_str(), 0700) == 0);
  return directory;
}

BoxUnderTest::BoxUnderTest(const std::string& directory)
    : directory_flags(O_PATH | O_DIRECTORY), directory_(directory) {
  order.id = directory.substr(directory.rfind('/') + 1);
  order.hostname = "under-test";
  order.storage_bytes = std::uint64_t{64} << 20;
}

BoxUnderTest::~BoxUnderTest() {
  control_.reset();
  if (keeper_ > 0) await_keeper();
}

void BoxUnderTest::start_keeper() {
  auto control = protocol::packet_pair();
  auto session = protocol::packet_pair();
  REQUIRE(control.ok());
  REQUIRE(session.ok());
  control_ = std::move(control.value().first);
  const UniqueFd inner = std::move(control.value().second);
  session_ = std::move(session.value().first);
  agent_session_ = std::move(session.value().second);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, inner.get(), 3);
  std::string name = "sluicebox-keeper";
  char* argv[] = {name.data(), order.id.data(), nullptr};
  char* environment[] = {nullptr};
  REQUIRE(::posix_spawn(&keeper_, SLUICEBOX_KEEPER, &actions, nullptr, argv, environment) == 0);
  posix_spawn_file_actions_destroy(&actions);
}

void BoxUnderTest::prepare() {
  const UniqueFd binary = sealed_copy(agent);
  const int passed[] = {binary.get()};
  protocol::Header header;
  header.type = protocol::Type::kPrepare;
  REQUIRE(protocol::send_message(control_.get(), header, {}, passed).ok());
}

void BoxUnderTest::send_order() {
  const UniqueFd binary = sealed_copy(agent);
  const UniqueFd directory(::open(directory_.c_str(), directory_flags | O_CLOEXEC));
  const UniqueFd lock(::open((directory_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  UniqueFd lower;
  std::vector<int> passed = {agent_session_.get(), binary.get(), directory.get(), lock.get()};
  if (order.root == protocol::Root::kDirectory) {
    lower = UniqueFd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    passed.push_back(lower.get());
  }
  if (descriptors) passed.resize(*descriptors);
  protocol::Header header;
  header.type = protocol::Type::kLaunch;
  REQUIRE(protocol::send_message(control_.get(), header, protocol::encode(order), passed).ok());
  agent_session_.reset();
}

protocol::Header BoxUnderTest::receive(std::vector<std::byte>& payload) {
  INFO("waiting for the keeper of " << directory_);
  REQUIRE(await(control_.get(), POLLIN));
  payload.resize(protocol::kMaxPayload);
  auto frame = protocol::receive_frame(control_.get(), payload);
  REQUIRE(frame.ok());
  payload.resize(frame.value().length);
  return frame.value().header;
}

const Answer& BoxUnderTest::await_answer() {
  std::vector<std::byte> payload;
  const protocol::Header header = receive(payload);
  answer_.launched = header.type == protocol::Type::kLaunched;
  if (answer_.launched) {
    answer_.ok = protocol::decode_launched(payload).value();
    char ready[16];
    REQUIRE(await(session_.get(), POLLIN));
    REQUIRE(::recv(session_.get(), ready, sizeof ready, 0) == 5);
  } else {
    REQUIRE(header.type == protocol::Type::kLaunchFailed);
    answer_.failed = protocol::decode_launch_failed(payload).value();
  }
  return answer_;
}

const Answer& BoxUnderTest::launch() {
  start_keeper();
  send_order();
  return await_answer();
}

void BoxUnderTest::tell(const std::string& packet) {
  REQUIRE(::send(session_.get(), packet.data(), packet.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(packet.size()));
}

std::string BoxUnderTest::ask(const std::string& packet) {
  tell(packet);
  REQUIRE(await(session_.get(), POLLIN));
  std::string answer(200000, '\0');
  const ssize_t got = ::recv(session_.get(), answer.data(), answer.size(), 0);
  REQUIRE(got > 0);
  answer.resize(static_cast<std::size_t>(got));
  return answer;
}

std::string BoxUnderTest::run(std::vector<std::string> argv, int expected) {
  std::string packet = "e" + argv[0];
  for (std::size_t i = 1; i < argv.size(); ++i) packet += std::string(1, '\0') + argv[i];
  const std::string answer = ask(packet);
  const std::size_t line = answer.find('\n');
  const std::string output = answer.substr(line + 1);
  INFO(argv.back() << " said: " << output);
  if (expected >= 0) CHECK(std::stoi(answer) == expected);
  return output;
}

Call BoxUnderTest::call(long number, const std::vector<std::string>& arguments) {
  std::string packet = "s" + std::to_string(number);
  for (const std::string& argument : arguments) packet += "," + argument;
  const std::string answer = ask(packet);
  Call made;
  made.died = answer.starts_with("died");
  if (!made.died) std::istringstream(answer) >> made.result >> made.error;
  return made;
}

protocol::Ended BoxUnderTest::stop(std::uint64_t grace_ms) {
  protocol::Header header;
  header.type = protocol::Type::kStop;
  REQUIRE(protocol::send_message(control_.get(), header, protocol::encode(protocol::Stop{grace_ms})).ok());
  return await_end();
}

protocol::Ended BoxUnderTest::await_end() {
  std::vector<std::byte> payload;
  REQUIRE(receive(payload).type == protocol::Type::kEnded);
  return protocol::decode_ended(payload).value();
}

void BoxUnderTest::send_to_keeper(protocol::Type type, Bytes payload, std::span<const int> passed) {
  REQUIRE(protocol::send_frame(control_.get(), {.type = type}, payload, passed).ok());
}

protocol::Type BoxUnderTest::await_word() {
  std::vector<std::byte> payload;
  return receive(payload).type;
}

void BoxUnderTest::kill_keeper() { ::kill(keeper_, SIGKILL); }

int BoxUnderTest::await_keeper() {
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, keeper_, 0)));
  // A keeper that does not end is told by its own state, and not left behind.
  const bool ended = await(handle.get(), POLLIN);
  CHECK(ended);
  if (!ended) ::kill(keeper_, SIGKILL);
  int status = 0;
  ::waitpid(keeper_, &status, 0);
  keeper_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

std::string BoxUnderTest::proc(const std::string& name) const {
  return read_text("/proc/" + std::to_string(pid1()) + "/" + name);
}

UniqueFd BoxUnderTest::open_pid1() const { return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid1(), 0))); }

bool as_root() { return ::geteuid() == 0; }

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {(std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>()};
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

bool await(int fd, short events, int deadline_ms) {
  pollfd one{fd, events, 0};
  int ready = 0;
  do ready = ::poll(&one, 1, deadline_ms);
  while (ready < 0 && errno == EINTR);
  return ready > 0;
}

std::vector<std::string> cgroups_named(const std::string& part) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (std::filesystem::recursive_directory_iterator at("/sys/fs/cgroup", ignored), end; at != end;
       at.increment(ignored)) {
    if (at->is_directory(ignored) && at->path().filename().string().find(part) != std::string::npos)
      found.push_back(at->path());
  }
  return found;
}

}  // namespace sluicebox::test

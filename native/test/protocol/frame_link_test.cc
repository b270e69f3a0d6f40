#include "protocol/frame_link.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

namespace sluicebox::protocol {

namespace {

constexpr std::size_t kPayload = kMaxPayload;

struct Pair {
  UniqueFd near;
  UniqueFd far;
};

Pair stream_pair() {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::vector<std::byte> payload_of(std::uint32_t number, std::size_t size = kPayload) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + number);
  return bytes;
}

Header header_of(std::uint32_t number) { return {.type = Type::kOutput, .channel = 1, .request = number}; }

bool is_full(const Status& status) { return !status.ok() && status.error().os_error == EAGAIN; }

// From here on each write() of this thread succeeds with no byte written.
bool take_nothing() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_write, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = 4, .filter = program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

}  // namespace

TEST_SUITE("frames over a stream") {
  TEST_CASE("S15 frames keep their borders and order, however the stream cuts them") {
    // A pipe takes what it has room for, as a port's driver does; a socket takes all of a frame or nothing.
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    FrameLink sender(UniqueFd{ends[1]}, FrameLink::Kind::kStream);
    FrameLink receiver(UniqueFd{ends[0]}, FrameLink::Kind::kStream);
    std::vector<std::byte> buffer(kMaxPayload);
    std::uint32_t sent = 0;
    std::uint32_t received = 0;
    bool was_full = false;
    while (received < 200) {
      // The socket holds some frames, and takes the last one in part.
      while (sent < 200) {
        const Status done = sender.send(header_of(sent), payload_of(sent, sent % 2 == 0 ? kPayload : sent));
        was_full = was_full || sender.unsent();
        if (is_full(done)) break;
        REQUIRE(done.ok());
        ++sent;
      }
      const auto frame = receiver.receive(buffer);
      if (!frame.ok() && frame.error().os_error == EAGAIN) {
        const Status flushed = sender.flush();
        REQUIRE((flushed.ok() || is_full(flushed)));
        continue;
      }
      REQUIRE(frame.ok());
      CHECK(frame.value().header.request == received);
      const auto expected = payload_of(received, received % 2 == 0 ? kPayload : received);
      REQUIRE(frame.value().length == expected.size());
      CHECK(std::equal(expected.begin(), expected.end(), buffer.begin()));
      ++received;
    }
    CHECK(was_full);
    CHECK_FALSE(sender.unsent());
    CHECK_FALSE(receiver.buffered());
  }

  TEST_CASE("S15 buffered() tells of a whole frame that was read with another, and of one that is none") {
    auto [near, far] = stream_pair();
    FrameLink sender(std::move(near), FrameLink::Kind::kStream);
    const int raw = sender.get();
    FrameLink receiver(std::move(far), FrameLink::Kind::kStream);
    std::vector<std::byte> buffer(kMaxPayload);
    REQUIRE(sender.send(header_of(1), payload_of(1, 3)).ok());
    REQUIRE(sender.send(header_of(2), {}).ok());
    const std::array<std::byte, kHeaderSize> garbage = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff}};
    REQUIRE(::write(raw, garbage.data(), garbage.size()) == static_cast<ssize_t>(garbage.size()));
    CHECK_FALSE(receiver.buffered());
    CHECK(receiver.receive(buffer).value().header.request == 1);
    CHECK(receiver.buffered());
    CHECK(receiver.receive(buffer).value().header.request == 2);
    CHECK(receiver.buffered());
    const auto refused = receiver.receive(buffer);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().code == ErrorCode::kIo);
  }

  TEST_CASE("S15 an end in the midst of a frame is the end, and no descriptor travels") {
    auto [near, far] = stream_pair();
    const auto head = encode({.length = 100, .type = Type::kOutput});
    REQUIRE(::write(near.get(), head.data(), head.size()) == static_cast<ssize_t>(head.size()));
    FrameLink receiver(std::move(far), FrameLink::Kind::kStream);
    std::vector<std::byte> buffer(kMaxPayload);
    CHECK(receiver.receive(buffer).error().os_error == EAGAIN);
    const int descriptors[] = {near.get()};
    FrameLink sender(std::move(near), FrameLink::Kind::kStream);
    CHECK(sender.send(header_of(1), {}, descriptors).error().code == ErrorCode::kInternal);
    sender.reset();
    const auto ended = receiver.receive(buffer);
    REQUIRE_FALSE(ended.ok());
    CHECK(ended.error().code == ErrorCode::kClosed);
    CHECK(ended.error().os_error == 0);
  }

  TEST_CASE("a stream that is ready and takes no byte is broken, not tried again and again") {
    // What a virtio port does once its guest's kernel has reset it, on the way to power-off.
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const UniqueFd reader(ends[0]);
    const auto sender = std::make_shared<FrameLink>(UniqueFd{ends[1]}, FrameLink::Kind::kStream);
    static_assert(kPayload > 4096);
    REQUIRE(::fcntl(reader.get(), F_SETPIPE_SZ, 4096) == 4096);
    REQUIRE(sender->send(header_of(0), payload_of(0)).ok());
    REQUIRE(sender->unsent());
    // Of a loop without end this thread must not be a part.
    std::promise<Status> promise;
    std::future<Status> flushed = promise.get_future();
    std::thread([sender, promise = std::move(promise)]() mutable {
      promise.set_value(take_nothing() ? sender->flush() : Status(Error(ErrorCode::kInternal, "no filter")));
    }).detach();
    REQUIRE(flushed.wait_for(std::chrono::minutes(1)) == std::future_status::ready);
    CHECK(flushed.get().error().code == ErrorCode::kClosed);
  }
}

}  // namespace sluicebox::protocol

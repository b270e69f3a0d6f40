#include "protocol/frame.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "protocol/assembler.h"
#include "protocol/packet_socket.h"

namespace sluicebox::protocol {

namespace {

constexpr Header kHeader{
    .length = 5, .type = Type::kOutput, .more = true, .channel = 0x01020304, .request = 0xa0b0c0d0};

std::vector<std::byte> bytes_of(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
  return bytes;
}

}  // namespace

TEST_SUITE("protocol frames") {
  TEST_CASE("S15 a header comes back as it was, in its one form") {
    const auto bytes = encode(kHeader);
    const Header again = decode_header(bytes).value();
    CHECK(again.length == 5);
    CHECK(again.type == Type::kOutput);
    CHECK(again.more);
    CHECK(again.channel == 0x01020304);
    CHECK(again.request == 0xa0b0c0d0);
    const std::array<std::uint8_t, 16> expected = {5, 0, 0, 0, 32, 1, 0, 0, 4, 3, 2, 1, 0xd0, 0xc0, 0xb0, 0xa0};
    for (std::size_t i = 0; i < bytes.size(); ++i) CHECK(std::to_integer<int>(bytes[i]) == expected[i]);
  }

  TEST_CASE("S15 what is no frame of ours is refused") {
    auto good = encode(kHeader);
    for (std::size_t size = 0; size < kHeaderSize; ++size) CHECK_FALSE(decode_header(Bytes(good).first(size)).ok());
    int known = 0;
    for (int type = 0; type < 256; ++type) {
      auto bytes = good;
      bytes[4] = static_cast<std::byte>(type);
      known += decode_header(bytes).ok() ? 1 : 0;
    }
    CHECK(known == 40);
    for (const std::uint32_t length : {std::uint32_t{kMaxPayload} + 1, 0x80000000U, 0xffffffffU}) {
      Header header = kHeader;
      header.length = length;
      CHECK_FALSE(decode_header(encode(header)).ok());
    }
    for (const std::size_t at : {5U, 6U, 7U}) {
      auto bytes = good;
      bytes[at] = std::byte{2};
      CHECK_FALSE(decode_header(bytes).ok());
    }
  }

  TEST_CASE("S15 fragments are joined, and nothing else") {
    Assembler assembler(100);
    const auto bytes = bytes_of(60);
    Header header{.type = Type::kSpawn, .more = true, .channel = 1, .request = 2};
    CHECK_FALSE(assembler.add(header, Bytes(bytes).first(40)).value().has_value());
    header.more = false;
    const auto joined = assembler.add(header, Bytes(bytes).subspan(40)).value();
    REQUIRE(joined.has_value());
    CHECK(std::equal(joined->payload.begin(), joined->payload.end(), bytes.begin(), bytes.end()));
    // A whole message in one frame, an empty one too.
    CHECK(assembler.add(header, bytes).value()->payload.size() == 60);
    CHECK(assembler.add(header, {}).value()->payload.empty());
  }

  TEST_CASE("S15 a message that grows past its limit, or never, is refused") {
    const auto bytes = bytes_of(60);
    const Header more{.type = Type::kSpawn, .more = true, .channel = 1, .request = 2};
    Assembler large(100);
    CHECK(large.add(more, bytes).ok());
    CHECK_FALSE(large.add(more, bytes).ok());
    Assembler endless(100);
    CHECK_FALSE(endless.add(more, {}).ok());
    for (int field = 0; field < 3; ++field) {
      Header other = more;
      if (field == 0) other.type = Type::kPing;
      if (field == 1) other.channel = 9;
      if (field == 2) other.request = 9;
      Assembler mixed(100);
      CHECK(mixed.add(more, bytes).ok());
      CHECK_FALSE(mixed.add(other, {}).ok());
    }
  }

  TEST_CASE("S15 a message of any size crosses a socket whole, descriptors with its first frame") {
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, kMaxPayload, kMaxPayload + 1, std::size_t{3000000}}) {
      INFO(size);
      auto pair = packet_pair();
      REQUIRE(pair.ok());
      const auto sent = bytes_of(size);
      int pipe[2];
      REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
      const UniqueFd read_end(pipe[0]);
      UniqueFd write_end(pipe[1]);
      Status status = ok_status();
      std::thread sender([&] {
        const int passed = write_end.get();
        status = send_message(pair.value().first.get(), {.type = Type::kSpawn, .channel = 3, .request = 4}, sent,
                              std::span(&passed, 1));
        write_end.reset();
      });
      Assembler assembler(kMaxMessage);
      std::vector<std::byte> buffer(kMaxPayload);
      std::vector<UniqueFd> descriptors;
      std::vector<std::byte> got;
      bool whole = false;
      for (bool first = true; !whole; first = false) {
        auto received = receive_frame(pair.value().second.get(), buffer);
        REQUIRE(received.ok());
        CHECK(received->descriptors.size() == (first ? 1 : 0));
        if (first) descriptors = std::move(received->descriptors);
        const auto joined = assembler.add(received->header, Bytes(buffer).first(received->length));
        REQUIRE(joined.ok());
        whole = joined.value().has_value();
        if (whole) got.assign(joined.value()->payload.begin(), joined.value()->payload.end());
      }
      sender.join();
      CHECK(status.ok());
      CHECK((got == sent));
      CHECK(::fcntl(descriptors[0].get(), F_GETFD) == FD_CLOEXEC);
      CHECK(::write(descriptors[0].get(), "x", 1) == 1);
      char byte = 0;
      CHECK(::read(read_end.get(), &byte, 1) == 1);
    }
  }

  TEST_CASE("S15 packets that are no frames are refused, and their descriptors closed") {
    auto pair = packet_pair();
    REQUIRE(pair.ok());
    std::vector<std::byte> buffer(kMaxPayload);
    const auto refused = [&](Bytes packet) {
      REQUIRE(::send(pair.value().first.get(), packet.data(), packet.size(), 0) == static_cast<ssize_t>(packet.size()));
      return !receive_frame(pair.value().second.get(), buffer).ok();
    };
    const auto header = encode(Header{.length = 5, .type = Type::kPing});
    CHECK(refused(Bytes(header).first(3)));
    CHECK(refused(header));  // its five bytes are not there
    std::vector<std::byte> longer(header.begin(), header.end());
    longer.resize(kHeaderSize + 6);
    CHECK(refused(longer));
    longer.resize(kMaxFrame + 1);
    CHECK(refused(longer));
  }

  TEST_CASE("S15 a hang-up and an empty socket are told apart") {
    auto pair = packet_pair();
    REQUIRE(pair.ok());
    std::vector<std::byte> buffer(kMaxPayload);
    const int socket = pair.value().second.get();
    REQUIRE(::fcntl(socket, F_SETFL, O_NONBLOCK) == 0);
    auto received = receive_frame(socket, buffer);
    CHECK(received.error().code == ErrorCode::kClosed);
    CHECK(received.error().os_error == EAGAIN);
    Status sent = ok_status();
    while (sent.ok()) sent = send_message(socket, {.type = Type::kPing}, {});
    CHECK(sent.error().code == ErrorCode::kClosed);
    CHECK(sent.error().os_error == EAGAIN);
    pair.value().first.reset();
    received = receive_frame(socket, buffer);
    CHECK(received.error().code == ErrorCode::kClosed);
    CHECK(received.error().os_error == 0);
    sent = send_message(socket, {.type = Type::kPing}, {});
    CHECK(sent.error().code == ErrorCode::kClosed);
    CHECK(sent.error().os_error == 0);
  }
}

}  // namespace sluicebox::protocol

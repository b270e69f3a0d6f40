#include "box/nbd_client.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <string>
#include <vector>

namespace sluicebox::box {

namespace {

using Script = std::vector<std::string>;

std::string big(std::uint64_t value, std::size_t bytes) {
  std::string text;
  for (std::size_t shift = bytes * 8; shift > 0; shift -= 8) text += static_cast<char>(value >> (shift - 8));
  return text;
}

const std::string kGreeting = "NBDMAGICIHAVEOPT" + big(3, 2);
std::string option_reply(std::uint32_t type, const std::string& body) {
  return big(0x0003e889045565a9, 8) + big(7, 4) + big(type, 4) + big(body.size(), 4) + body;
}
const std::string kExport = option_reply(3, big(0, 2) + big(1 << 20, 8) + big(1, 2));
const std::string kAck = option_reply(1, "");
std::string reply(std::uint32_t error, std::uint64_t handle, const std::string& data) {
  return big(0x67446698, 4) + big(error, 4) + big(handle, 8) + data;
}

// Says all of it at once, and hangs up: what is asked does not matter to these tests.
UniqueFd peer(const std::string& script) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const UniqueFd far(ends[1]);
  REQUIRE(::send(far.get(), script.data(), script.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(script.size()));
  REQUIRE(::shutdown(far.get(), SHUT_WR) == 0);
  // Held by nobody: what the client sends fails at the latest with its next read.
  static std::vector<UniqueFd> kept;
  kept.emplace_back(UniqueFd(::fcntl(far.get(), F_DUPFD_CLOEXEC, 0)));
  return UniqueFd(ends[0]);
}

Result<NbdClient> negotiate(const std::string& script) {
  return NbdClient::negotiate(peer(script), "disk", std::chrono::seconds(60));
}

}  // namespace

TEST_SUITE("NBD") {
  TEST_CASE("an export is taken with its size, and read") {
    const std::string data(512, 'd');
    auto client = negotiate(kGreeting + kExport + kAck + reply(0, 1, data) + reply(0, 2, data));
    REQUIRE(client.ok());
    CHECK(client.value().size() == 1 << 20);
    std::vector<std::byte> bytes(512);
    REQUIRE(client.value().read(0, bytes).ok());
    REQUIRE(client.value().read(512, bytes).ok());
    CHECK(std::to_integer<char>(bytes[511]) == 'd');
  }

  TEST_CASE("S35 a peer that is none, cut short or says something else is a typed error") {
    for (const std::string& script :
         Script{"", "NBD", std::string(18, 'x'), "NBDMAGICIHAVEOPT" + big(0, 2), kGreeting, kGreeting + kAck,
                kGreeting + option_reply(3, "x"), kGreeting + option_reply(0x80000001, "no"),
                kGreeting + option_reply(9, "xx"), kGreeting + std::string(20, '\1'),
                kGreeting + big(0x0003e889045565a9, 8) + big(7, 4) + big(3, 4) + big(0xffffffff, 4)}) {
      CAPTURE(script.size());
      CHECK_FALSE(negotiate(script).ok());
    }
  }

  TEST_CASE("S35 a reply to nothing, or of an error, is one") {
    std::vector<std::byte> bytes(512);
    for (const std::string& answer :
         Script{reply(0, 7, ""), reply(5, 1, ""), std::string(16, 'x'), reply(0, 1, "short")}) {
      auto client = negotiate(kGreeting + kExport + kAck + answer);
      REQUIRE(client.ok());
      CHECK_FALSE(client.value().read(0, bytes).ok());
    }
    std::vector<std::byte> much(NbdClient::kLongestRead + 1);
    auto client = negotiate(kGreeting + kExport + kAck);
    CHECK(client.value().read(0, much).error().code == ErrorCode::kInternal);
  }
}

}  // namespace sluicebox::box

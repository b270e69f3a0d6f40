#include "protocol/messages.h"

#include <doctest/doctest.h>

#include "protocol/wire.h"
#include "test/protocol/samples.h"

namespace sluicebox::protocol::test {

namespace {

// With one byte another; at the end of the message, to be counted from there.
Encoded with(Encoded bytes, std::size_t from_end, std::uint8_t value) {
  bytes[bytes.size() - from_end] = static_cast<std::byte>(value);
  return bytes;
}

}  // namespace

TEST_SUITE("protocol messages") {
  TEST_CASE("S15 every message comes back as it was sent") {
    for (const Sample& sample : samples()) {
      INFO(sample.name);
      const auto again = sample.again(sample.bytes);
      REQUIRE(again.ok());
      CHECK((again.value() == sample.bytes));
    }
  }

  TEST_CASE("S15 every field arrives") {
    const Spawn spawn = decode_spawn(samples()[1].bytes).value();
    CHECK(spawn.argv == std::vector<std::string>{"sh", "", "-c", "a b"});
    CHECK(spawn.env == std::vector<std::string>{"PATH=/bin", "X="});
    CHECK(spawn.cwd == "/work");
    CHECK(spawn.user.kind == User::Kind::kName);
    CHECK(spawn.user.name == "someone");
    CHECK(spawn.user.gid == 8);
    CHECK(spawn.in == Stdio::kFramed);
    CHECK(spawn.out == Stdio::kPassed);
    CHECK(spawn.err == Stdio::kStdout);
    CHECK(spawn.grace_ms == -1);
    CHECK_FALSE(decode_spawn(samples()[2].bytes).value().user.gid.has_value());
  }

  TEST_CASE("S15 a message that is cut short anywhere, or too long, is refused") {
    for (const Sample& sample : samples()) {
      for (std::size_t size = 0; size < sample.bytes.size(); ++size) {
        INFO(sample.name, " cut to ", size);
        CHECK_FALSE(sample.again(Bytes(sample.bytes).first(size)).ok());
      }
      Encoded longer = sample.bytes;
      longer.push_back(std::byte{0});
      INFO(sample.name);
      CHECK_FALSE(sample.again(longer).ok());
    }
  }

  TEST_CASE("S15 lengths beyond the message are refused before anything is allocated") {
    Writer writer;
    writer.u32(0xffffffff);  // so many words of argv
    CHECK_FALSE(decode_spawn(writer.take()).ok());
    writer.u32(1);
    writer.u32(0xfffffff0);  // so long the first
    CHECK_FALSE(decode_spawn(writer.take()).ok());
    writer.u32(1);
    writer.u32(2);
    writer.u32(0xffffffff);
    CHECK_FALSE(decode_launched(writer.take()).ok());
  }

  TEST_CASE("S15 values out of range are refused") {
    CHECK_FALSE(decode_hello(with(encode(Hello{.version = 1}), 1, 2)).ok());  // neither true nor false
    CHECK_FALSE(decode_hello(with(encode(Hello{.version = 1}), 2, 1)).ok());  // a version past 16 bits
    CHECK_FALSE(decode_spawn_failed(encode(SpawnFailed{SpawnStep{0}, 1})).ok());
    CHECK_FALSE(decode_spawn_failed(encode(SpawnFailed{SpawnStep{7}, 1})).ok());
    CHECK_FALSE(decode_spawn_failed(encode(SpawnFailed{SpawnStep::kUser, 4096})).ok());
    CHECK_FALSE(decode_exited(encode(Exited{.signaled = false, .code = 256})).ok());
    CHECK_FALSE(decode_exited(encode(Exited{.signaled = true, .code = 0})).ok());
    CHECK_FALSE(decode_exited(encode(Exited{.signaled = true, .code = 65})).ok());
    CHECK_FALSE(decode_kill(encode(Kill{.signal = 65})).ok());
    CHECK_FALSE(decode_kill(encode(Kill{.signal = 1, .scope = KillScope{2}})).ok());
    CHECK_FALSE(decode_kill(encode(Kill{.signal = 1, .force_after_ms = -2})).ok());
    CHECK_FALSE(decode_killed(encode(Killed{.os_error = 4096})).ok());
    CHECK_FALSE(decode_resize(encode(Resize{.cols = 0x10000})).ok());
    CHECK_FALSE(decode_resize(encode(Resize{.rows = 0x10000})).ok());
    CHECK_FALSE(decode_resized(encode(Resized{.os_error = 4096})).ok());
    CHECK_FALSE(decode_of_stream(encode(OfStream{Stream{3}})).ok());
    CHECK_FALSE(decode_credit(encode(Credit{Stream{3}, 1})).ok());
    CHECK_FALSE(decode_data({}).ok());
    CHECK_FALSE(decode_data(as_bytes("\x03")).ok());
    CHECK(decode_data(as_bytes("\x01"
                               "abc"))
              .value()
              .bytes.size() == 3);
    Launch launch;
    launch.root = Root{2};
    CHECK_FALSE(decode_launch(encode(launch)).ok());
    // One message has one form: an id that is not given is zero.
    Encoded without_gid = samples()[2].bytes;
    REQUIRE(decode_spawn(without_gid).ok());
    const std::size_t gid_from_end = 3 + 1 + 4 + 4 + 8 + 4 + 8 + 4 + 4;
    CHECK_FALSE(decode_spawn(with(without_gid, gid_from_end, 1)).ok());
  }

  TEST_CASE("X22 a spawn that no host of ours sends is refused") {
    const Spawn good = decode_spawn(samples()[1].bytes).value();
    const auto refused = [&](auto change) {
      Spawn spawn = good;
      change(spawn);
      return !decode_spawn(encode(spawn)).ok();
    };
    const std::string nul("a\0b", 3);
    CHECK(refused([](Spawn& spawn) { spawn.argv.clear(); }));
    CHECK(refused([&](Spawn& spawn) { spawn.argv.push_back(nul); }));
    CHECK(refused([&](Spawn& spawn) { spawn.env.push_back(nul); }));
    CHECK(refused([&](Spawn& spawn) { spawn.cwd = nul; }));
    CHECK(refused([](Spawn& spawn) { spawn.user.kind = User::Kind{3}; }));
    CHECK(refused([](Spawn& spawn) { spawn.in = Stdio::kStdout; }));
    CHECK(refused([](Spawn& spawn) { spawn.out = Stdio::kStdout; }));
    CHECK(refused([](Spawn& spawn) { spawn.err = Stdio{4}; }));
    CHECK(refused([](Spawn& spawn) { spawn.cols = 0x10000; }));
    CHECK(refused([](Spawn& spawn) { spawn.rows = 0x10000; }));
    CHECK(refused([](Spawn& spawn) { spawn.grace_ms = -2; }));
    CHECK(refused([](Spawn& spawn) { spawn.kill_signal = 0; }));
    CHECK(refused([](Spawn& spawn) { spawn.kill_signal = 65; }));
    CHECK(refused([](Spawn& spawn) { spawn.tty = true; }));  // stdin framed, stdout passed
    const Spawn terminal = decode_spawn(samples()[2].bytes).value();
    for (const Stdio err : {Stdio::kNull, Stdio::kPassed, Stdio::kFramed}) {
      Spawn spawn = terminal;
      spawn.err = err;
      CHECK_FALSE(decode_spawn(encode(spawn)).ok());
    }
    Spawn silent = terminal;
    silent.in = silent.out = Stdio::kNull;
    CHECK_FALSE(decode_spawn(encode(silent)).ok());
  }
}

}  // namespace sluicebox::protocol::test

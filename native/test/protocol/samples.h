// samples.h: one message of every type with payload, each field with a value of its own, for tests and fuzzing.
// Knows: messages. A type that is missing here is missing in every table that is walked over it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "protocol/messages.h"

namespace sluicebox::protocol::test {

struct Sample {
  std::string name;
  Encoded bytes;
  // Decodes and encodes again; an error if it is not that message.
  std::function<Result<Encoded>(Bytes)> again;
};

template <typename T>
Result<Encoded> reencode(Result<T> decoded) {
  if (!decoded.ok()) return decoded.error();
  return encode(decoded.value());
}

inline std::vector<Sample> samples() {
  const Limit limit{.value = 0x123456789a, .asked = true};
  const Spawn spawn{.argv = {"sh", "", "-c", "a b"},
                    .env = {"PATH=/bin", "X="},
                    .cwd = "/work",
                    .user = {.kind = User::Kind::kName, .name = "someone", .uid = 7, .gid = 8},
                    .in = Stdio::kFramed,
                    .out = Stdio::kPassed,
                    .err = Stdio::kStdout,
                    .tty = false,
                    .cols = 0xffff,
                    .rows = 1,
                    .timeout_ms = 1ULL << 60,
                    .kill_signal = 64,
                    .grace_ms = -1,
                    .window = 0xffffffff,
                    .extra = 200};
  Spawn terminal = spawn;
  terminal.tty = true;
  terminal.out = Stdio::kFramed;
  terminal.user = {};
  return {
      {"hello", encode(Hello{.version = 0xffff, .leash = true}), [](Bytes b) { return reencode(decode_hello(b)); }},
      {"spawn", encode(spawn), [](Bytes b) { return reencode(decode_spawn(b)); }},
      {"spawn on a terminal", encode(terminal), [](Bytes b) { return reencode(decode_spawn(b)); }},
      {"machine",
       encode(Machine{.hostname = "box",
                      .machine_id = "0123456789abcdef0123456789abcdef",
                      .realtime_ns = -1,
                      .entropy = {std::byte{1}, std::byte{0}},
                      .root_serial = "root",
                      .root_partition = 1,
                      .file_system = FileSystem::kErofs,
                      .root_readonly = true,
                      .layer_bytes = 1ULL << 40,
                      .processes = 512}),
       [](Bytes b) { return reencode(decode_machine(b)); }},
      {"machine-ready", encode(MachineReady{.own_identity = false}),
       [](Bytes b) { return reencode(decode_machine_ready(b)); }},
      {"machine-failed", encode(MachineFailed{.step = "mount the root", .os_error = 4095}),
       [](Bytes b) { return reencode(decode_machine_failed(b)); }},
      {"spawned", encode(Spawned{.pid = 0xffffffff}), [](Bytes b) { return reencode(decode_spawned(b)); }},
      {"spawn-failed", encode(SpawnFailed{.step = SpawnStep::kProgram, .os_error = 4095}),
       [](Bytes b) { return reencode(decode_spawn_failed(b)); }},
      {"exited",
       encode(Exited{.signaled = true,
                     .code = 64,
                     .timed_out = true,
                     .forced = true,
                     .user_us = 1,
                     .system_us = 2,
                     .max_rss_bytes = 3,
                     .started_at_ms = 4,
                     .duration_us = 5,
                     .own_stdout = 6,
                     .own_stderr = ~0ULL}),
       [](Bytes b) { return reencode(decode_exited(b)); }},
      {"kill", encode(Kill{.signal = 64, .scope = KillScope::kProcess, .force_after_ms = -1}),
       [](Bytes b) { return reencode(decode_kill(b)); }},
      {"killed", encode(Killed{.delivered = true, .os_error = 3}), [](Bytes b) { return reencode(decode_killed(b)); }},
      {"resize", encode(Resize{.cols = 0xffff, .rows = 2}), [](Bytes b) { return reencode(decode_resize(b)); }},
      {"resized", encode(Resized{.os_error = 25}), [](Bytes b) { return reencode(decode_resized(b)); }},
      {"of-stream", encode(OfStream{Stream::kStderr}), [](Bytes b) { return reencode(decode_of_stream(b)); }},
      {"credit", encode(Credit{Stream::kStdout, 0xffffffff}), [](Bytes b) { return reencode(decode_credit(b)); }},
      {"launch",
       encode(Launch{.id = "0123",
                     .hostname = "box",
                     .root = Root::kDirectory,
                     .keep = true,
                     .temporary_layer = true,
                     .exclusive = true,
                     .storage_bytes = 9,
                     .storage_asked = true,
                     .memory_bytes = limit,
                     .vcpus = {},
                     .processes = limit,
                     .first_uid = 65536}),
       [](Bytes b) { return reencode(decode_launch(b)); }},
      {"launched", encode(Launched{.pid = 1, .first_uid = 2, .warnings = {"one", ""}}),
       [](Bytes b) { return reencode(decode_launched(b)); }},
      {"launch-failed", encode(LaunchFailed{.code = 43, .os_error = 1, .message = "m", .path = "p", .hint = "h"}),
       [](Bytes b) { return reencode(decode_launch_failed(b)); }},
      {"stop", encode(Stop{.grace_ms = ~0ULL}), [](Bytes b) { return reencode(decode_stop(b)); }},
      {"ended",
       encode(Ended{.asked = true, .forced = true, .signaled = true, .code = 9, .oom_kills = 2, .leftovers = {"a: b"}}),
       [](Bytes b) { return reencode(decode_ended(b)); }},
      {"leave", encode(Leave{.state = "{}", .descriptors = {Left::kHold, Left::kDrain, Left::kLast}}),
       [](Bytes b) { return reencode(decode_leave(b)); }},
      {"given", encode(Given{.started_at_ms = 1, .first_uid = 65536, .warnings = {"one"}, .state = "{}"}),
       [](Bytes b) { return reencode(decode_given(b)); }},
  };
}

}  // namespace sluicebox::protocol::test

#include "protocol/messages.h"

#include <algorithm>

#include "protocol/wire.h"

namespace sluicebox::protocol {

namespace {

Error malformed(const char* message) {
  return {ErrorCode::kIo, std::string("a malformed ") + message + " message came"};
}

// A number of a contiguous enum that starts at `first`.
template <typename E>
E enumerator(Reader& reader, E first, E last, bool& valid) {
  const std::uint8_t number = reader.u8();
  valid = valid && number >= static_cast<std::uint8_t>(first) && number <= static_cast<std::uint8_t>(last);
  return static_cast<E>(number);
}

Stream stream_of(Reader& reader, bool& valid) { return enumerator(reader, Stream::kStdin, Stream::kStderr, valid); }

// Past the end of the text a program sees it cut short.
bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }
bool any_nul(const std::vector<std::string>& texts) { return std::any_of(texts.begin(), texts.end(), has_nul); }

void put(Writer& writer, const Limit& limit) {
  writer.u64(limit.value);
  writer.flag(limit.asked);
}
Limit limit_of(Reader& reader) {
  Limit limit;
  limit.value = reader.u64();
  limit.asked = reader.flag();
  return limit;
}

}  // namespace

Encoded encode(const Hello& hello) {
  Writer writer;
  writer.u32(hello.version);
  writer.flag(hello.leash);
  return writer.take();
}
Result<Hello> decode_hello(Bytes bytes) {
  Reader reader(bytes);
  const std::uint32_t version = reader.u32();
  Hello hello{.version = static_cast<std::uint16_t>(version), .leash = reader.flag()};
  if (!reader.ok() || version > 0xffff) return malformed("hello");
  return hello;
}

Encoded encode(const Spawn& spawn) {
  Writer writer;
  writer.texts(spawn.argv);
  writer.texts(spawn.env);
  writer.text(spawn.cwd);
  writer.u8(static_cast<std::uint8_t>(spawn.user.kind));
  writer.text(spawn.user.name);
  writer.u32(spawn.user.uid);
  writer.flag(spawn.user.gid.has_value());
  writer.u32(spawn.user.gid.value_or(0));
  writer.u8(static_cast<std::uint8_t>(spawn.in));
  writer.u8(static_cast<std::uint8_t>(spawn.out));
  writer.u8(static_cast<std::uint8_t>(spawn.err));
  writer.flag(spawn.tty);
  writer.u32(spawn.cols);
  writer.u32(spawn.rows);
  writer.u64(spawn.timeout_ms);
  writer.u32(spawn.kill_signal);
  writer.i64(spawn.grace_ms);
  writer.u32(spawn.window);
  writer.u32(spawn.extra);
  return writer.take();
}
Result<Spawn> decode_spawn(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  Spawn spawn;
  spawn.argv = reader.texts();
  spawn.env = reader.texts();
  spawn.cwd = reader.text();
  spawn.user.kind = enumerator(reader, User::Kind::kRoot, User::Kind::kIds, valid);
  spawn.user.name = reader.text();
  spawn.user.uid = reader.u32();
  const bool has_gid = reader.flag();
  const std::uint32_t gid = reader.u32();
  if (has_gid) spawn.user.gid = gid;
  valid = valid && (has_gid || gid == 0);
  spawn.in = enumerator(reader, Stdio::kNull, Stdio::kFramed, valid);
  spawn.out = enumerator(reader, Stdio::kNull, Stdio::kFramed, valid);
  spawn.err = enumerator(reader, Stdio::kNull, Stdio::kStdout, valid);
  spawn.tty = reader.flag();
  spawn.cols = reader.u32();
  spawn.rows = reader.u32();
  spawn.timeout_ms = reader.u64();
  spawn.kill_signal = reader.u32();
  spawn.grace_ms = reader.i64();
  spawn.window = reader.u32();
  spawn.extra = reader.u32();
  valid = valid && spawn.extra <= 200;
  valid = valid && !spawn.argv.empty() && !any_nul(spawn.argv) && !any_nul(spawn.env) && !has_nul(spawn.cwd);
  valid = valid && (!spawn.tty || (spawn.in == spawn.out && spawn.in != Stdio::kNull && spawn.err == Stdio::kStdout));
  valid = valid && spawn.cols <= 0xffff && spawn.rows <= 0xffff && spawn.grace_ms >= -1;
  valid = valid && spawn.kill_signal >= 1 && spawn.kill_signal <= 64;
  if (!reader.ok() || !valid) return malformed("spawn");
  return spawn;
}

Encoded encode(const Spawned& spawned) {
  Writer writer;
  writer.u32(spawned.pid);
  return writer.take();
}
Result<Spawned> decode_spawned(Bytes bytes) {
  Reader reader(bytes);
  Spawned spawned{.pid = reader.u32()};
  if (!reader.ok()) return malformed("spawned");
  return spawned;
}

Encoded encode(const SpawnFailed& failed) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(failed.step));
  writer.u32(failed.os_error);
  return writer.take();
}
Result<SpawnFailed> decode_spawn_failed(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  SpawnFailed failed;
  failed.step = enumerator(reader, SpawnStep::kDescriptors, SpawnStep::kProgram, valid);
  failed.os_error = reader.u32();
  if (!reader.ok() || !valid || failed.os_error > 4095) return malformed("spawn-failed");
  return failed;
}

Encoded encode(const Exited& exited) {
  Writer writer;
  writer.flag(exited.signaled);
  writer.u32(exited.code);
  writer.flag(exited.timed_out);
  writer.flag(exited.forced);
  for (const std::uint64_t value : {exited.user_us, exited.system_us, exited.max_rss_bytes, exited.started_at_ms,
                                    exited.duration_us, exited.own_stdout, exited.own_stderr}) {
    writer.u64(value);
  }
  return writer.take();
}
Result<Exited> decode_exited(Bytes bytes) {
  Reader reader(bytes);
  Exited exited;
  exited.signaled = reader.flag();
  exited.code = reader.u32();
  exited.timed_out = reader.flag();
  exited.forced = reader.flag();
  for (std::uint64_t* value : {&exited.user_us, &exited.system_us, &exited.max_rss_bytes, &exited.started_at_ms,
                               &exited.duration_us, &exited.own_stdout, &exited.own_stderr}) {
    *value = reader.u64();
  }
  // 1 to 64 are Linux's signals; an exit code has eight bits.
  const bool valid = exited.signaled ? exited.code >= 1 && exited.code <= 64 : exited.code <= 255;
  if (!reader.ok() || !valid) return malformed("exited");
  return exited;
}

Encoded encode(const Kill& kill) {
  Writer writer;
  writer.u32(kill.signal);
  writer.u8(static_cast<std::uint8_t>(kill.scope));
  writer.i64(kill.force_after_ms);
  return writer.take();
}
Result<Kill> decode_kill(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  Kill kill;
  kill.signal = reader.u32();
  kill.scope = enumerator(reader, KillScope::kGroup, KillScope::kProcess, valid);
  kill.force_after_ms = reader.i64();
  if (!reader.ok() || !valid || kill.signal > 64 || kill.force_after_ms < -1) return malformed("kill");
  return kill;
}

Encoded encode(const Killed& killed) {
  Writer writer;
  writer.flag(killed.delivered);
  writer.u32(killed.os_error);
  return writer.take();
}
Result<Killed> decode_killed(Bytes bytes) {
  Reader reader(bytes);
  Killed killed;
  killed.delivered = reader.flag();
  killed.os_error = reader.u32();
  if (!reader.ok() || killed.os_error > 4095) return malformed("killed");
  return killed;
}

Encoded encode(const Resize& resize) {
  Writer writer;
  writer.u32(resize.cols);
  writer.u32(resize.rows);
  return writer.take();
}
Result<Resize> decode_resize(Bytes bytes) {
  Reader reader(bytes);
  Resize resize;
  resize.cols = reader.u32();
  resize.rows = reader.u32();
  if (!reader.ok() || resize.cols > 0xffff || resize.rows > 0xffff) return malformed("resize");
  return resize;
}

Encoded encode(const Resized& resized) {
  Writer writer;
  writer.u32(resized.os_error);
  return writer.take();
}
Result<Resized> decode_resized(Bytes bytes) {
  Reader reader(bytes);
  Resized resized{.os_error = reader.u32()};
  if (!reader.ok() || resized.os_error > 4095) return malformed("resized");
  return resized;
}

Result<Data> decode_data(Bytes bytes) {
  if (bytes.empty()) return malformed("data");
  Reader reader(bytes.first(1));
  bool valid = true;
  const Stream stream = stream_of(reader, valid);
  if (!valid) return malformed("data");
  return Data{.stream = stream, .bytes = bytes.subspan(1)};
}

Encoded encode(const OfStream& of) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(of.stream));
  return writer.take();
}
Result<OfStream> decode_of_stream(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  OfStream of{.stream = stream_of(reader, valid)};
  if (!reader.ok() || !valid) return malformed("stream");
  return of;
}

Encoded encode(const Credit& credit) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(credit.stream));
  writer.u32(credit.bytes);
  return writer.take();
}
Result<Credit> decode_credit(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  Credit credit;
  credit.stream = stream_of(reader, valid);
  credit.bytes = reader.u32();
  if (!reader.ok() || !valid) return malformed("credit");
  return credit;
}

Encoded encode(const Launch& launch) {
  Writer writer;
  writer.text(launch.id);
  writer.text(launch.hostname);
  writer.u8(static_cast<std::uint8_t>(launch.root));
  writer.flag(launch.keep);
  writer.flag(launch.temporary_layer);
  writer.flag(launch.exclusive);
  writer.u64(launch.storage_bytes);
  writer.flag(launch.storage_asked);
  put(writer, launch.memory_bytes);
  put(writer, launch.vcpus);
  put(writer, launch.processes);
  writer.u32(launch.first_uid);
  return writer.take();
}
Result<Launch> decode_launch(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  Launch launch;
  launch.id = reader.text();
  launch.hostname = reader.text();
  launch.root = enumerator(reader, Root::kHost, Root::kDirectory, valid);
  launch.keep = reader.flag();
  launch.temporary_layer = reader.flag();
  launch.exclusive = reader.flag();
  launch.storage_bytes = reader.u64();
  launch.storage_asked = reader.flag();
  launch.memory_bytes = limit_of(reader);
  launch.vcpus = limit_of(reader);
  launch.processes = limit_of(reader);
  launch.first_uid = reader.u32();
  if (!reader.ok() || !valid) return malformed("launch");
  return launch;
}

Encoded encode(const Launched& launched) {
  Writer writer;
  writer.u32(launched.pid);
  writer.u32(launched.first_uid);
  writer.texts(launched.warnings);
  return writer.take();
}
Result<Launched> decode_launched(Bytes bytes) {
  Reader reader(bytes);
  Launched launched;
  launched.pid = reader.u32();
  launched.first_uid = reader.u32();
  launched.warnings = reader.texts();
  if (!reader.ok()) return malformed("launched");
  return launched;
}

Encoded encode(const LaunchFailed& failed) {
  Writer writer;
  writer.u32(failed.code);
  writer.u32(failed.os_error);
  writer.text(failed.message);
  writer.text(failed.path);
  writer.text(failed.hint);
  return writer.take();
}
Result<LaunchFailed> decode_launch_failed(Bytes bytes) {
  Reader reader(bytes);
  LaunchFailed failed;
  failed.code = reader.u32();
  failed.os_error = reader.u32();
  failed.message = reader.text();
  failed.path = reader.text();
  failed.hint = reader.text();
  if (!reader.ok()) return malformed("launch-failed");
  return failed;
}

Encoded encode(const Machine& machine) {
  Writer writer;
  writer.text(machine.hostname);
  writer.text(machine.machine_id);
  writer.i64(machine.realtime_ns);
  writer.text({reinterpret_cast<const char*>(machine.entropy.data()), machine.entropy.size()});  // bytes as characters
  writer.text(machine.root_serial);
  writer.u32(machine.root_partition);
  writer.u8(static_cast<std::uint8_t>(machine.file_system));
  writer.flag(machine.root_readonly);
  writer.u64(machine.layer_bytes);
  writer.u64(machine.processes);
  return writer.take();
}
Result<Machine> decode_machine(Bytes bytes) {
  Reader reader(bytes);
  bool valid = true;
  Machine machine;
  machine.hostname = reader.text();
  machine.machine_id = reader.text();
  machine.realtime_ns = reader.i64();
  const std::string entropy = reader.text();
  const Bytes as_bytes = std::as_bytes(std::span(entropy));
  machine.entropy.assign(as_bytes.begin(), as_bytes.end());
  machine.root_serial = reader.text();
  machine.root_partition = reader.u32();
  machine.file_system = enumerator(reader, FileSystem::kExt4, FileSystem::kErofs, valid);
  machine.root_readonly = reader.flag();
  machine.layer_bytes = reader.u64();
  machine.processes = reader.u64();
  valid = valid && !has_nul(machine.hostname) && !has_nul(machine.machine_id) && !has_nul(machine.root_serial);
  if (!reader.ok() || !valid) return malformed("machine");
  return machine;
}

Encoded encode(const MachineFailed& failed) {
  Writer writer;
  writer.text(failed.step);
  writer.u32(failed.os_error);
  return writer.take();
}
Result<MachineFailed> decode_machine_failed(Bytes bytes) {
  Reader reader(bytes);
  MachineFailed failed;
  failed.step = reader.text();
  failed.os_error = reader.u32();
  if (!reader.ok()) return malformed("machine-failed");
  return failed;
}

Encoded encode(const MachineReady& ready) {
  Writer writer;
  writer.flag(ready.own_identity);
  return writer.take();
}
Result<MachineReady> decode_machine_ready(Bytes bytes) {
  Reader reader(bytes);
  const MachineReady ready{.own_identity = reader.flag()};
  if (!reader.ok()) return malformed("machine ready");
  return ready;
}

Encoded encode(const Freeze& freeze) {
  Writer writer;
  writer.flag(freeze.file_systems);
  return writer.take();
}
Result<Freeze> decode_freeze(Bytes bytes) {
  Reader reader(bytes);
  const Freeze freeze{.file_systems = reader.flag()};
  if (!reader.ok()) return malformed("freeze");
  return freeze;
}

Encoded encode(const Frozen& frozen) {
  Writer writer;
  writer.u32(frozen.os_error);
  return writer.take();
}
Result<Frozen> decode_frozen(Bytes bytes) {
  Reader reader(bytes);
  const Frozen frozen{.os_error = reader.u32()};
  if (!reader.ok()) return malformed("frozen");
  return frozen;
}

Encoded encode(const Stop& stop) {
  Writer writer;
  writer.u64(stop.grace_ms);
  return writer.take();
}
Result<Stop> decode_stop(Bytes bytes) {
  Reader reader(bytes);
  Stop stop{.grace_ms = reader.u64()};
  if (!reader.ok()) return malformed("stop");
  return stop;
}

Encoded encode(const Ended& ended) {
  Writer writer;
  writer.flag(ended.asked);
  writer.flag(ended.forced);
  writer.flag(ended.signaled);
  writer.u32(ended.code);
  writer.u64(ended.oom_kills);
  writer.texts(ended.leftovers);
  return writer.take();
}
Result<Ended> decode_ended(Bytes bytes) {
  Reader reader(bytes);
  Ended ended;
  ended.asked = reader.flag();
  ended.forced = reader.flag();
  ended.signaled = reader.flag();
  ended.code = reader.u32();
  ended.oom_kills = reader.u64();
  ended.leftovers = reader.texts();
  if (!reader.ok()) return malformed("ended");
  return ended;
}

Encoded encode(const Leave& leave) {
  Writer writer;
  writer.text(leave.state);
  std::string descriptors;
  for (const Left each : leave.descriptors) descriptors.push_back(static_cast<char>(each));
  writer.text(descriptors);
  return writer.take();
}
Result<Leave> decode_leave(Bytes bytes) {
  Reader reader(bytes);
  Leave leave;
  leave.state = reader.text();
  bool known = true;
  for (const char each : reader.text()) {
    known = known && static_cast<unsigned char>(each) <= static_cast<unsigned char>(Left::kLast);
    leave.descriptors.push_back(static_cast<Left>(each));
  }
  if (!reader.ok() || !known) return malformed("leave");
  return leave;
}

Encoded encode(const Given& given) {
  Writer writer;
  writer.u64(given.started_at_ms);
  writer.u32(given.first_uid);
  writer.texts(given.warnings);
  writer.text(given.state);
  return writer.take();
}
Result<Given> decode_given(Bytes bytes) {
  Reader reader(bytes);
  Given given;
  given.started_at_ms = reader.u64();
  given.first_uid = reader.u32();
  given.warnings = reader.texts();
  given.state = reader.text();
  if (!reader.ok()) return malformed("given");
  return given;
}

}  // namespace sluicebox::protocol

// messages.h: what each message carries, and its one form on the wire.
// Knows: wire fields. Does not know: sockets, processes, who sends.
// Threads: values only.
//
// Every decode() is for bytes of a peer that may be hostile: kIo when they are not that message, whole and with nothing
// left over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::protocol {

using Encoded = std::vector<std::byte>;

// Of an execution, as channels within it.
enum class Stream : std::uint8_t { kStdin = 0, kStdout = 1, kStderr = 2 };

// ---------- sessions ----------
struct Hello {
  std::uint16_t version = 0;
  // Who begins the session has set: when it hangs up, the box ends.
  bool leash = false;
};
Encoded encode(const Hello& hello);
Result<Hello> decode_hello(Bytes bytes);

// ---------- executions ----------
enum class Stdio : std::uint8_t {
  kNull = 0,    // /dev/null of the box
  kPassed = 1,  // a descriptor that travels with the message, in the order stdin, stdout, stderr
  kFramed = 2,  // frames, within credit
  kStdout = 3,  // stderr only: what stdout is
};

struct User {
  enum class Kind : std::uint8_t { kRoot = 0, kName = 1, kIds = 2 };
  Kind kind = Kind::kRoot;
  std::string name;  // a name of the box's /etc/passwd, or a number
  std::uint32_t uid = 0;
  std::optional<std::uint32_t> gid;  // default: the user's own, or 0
};

// On a terminal stdin and stdout are the terminal's other side: both kPassed (the answer brings it as a descriptor) or
// both kFramed; stderr is kStdout.
struct Spawn {
  std::vector<std::string> argv;  // at least one
  std::vector<std::string> env;   // the whole environment, KEY=value
  std::string cwd;
  User user;
  Stdio in = Stdio::kNull;
  Stdio out = Stdio::kNull;
  Stdio err = Stdio::kNull;
  bool tty = false;
  std::uint32_t cols = 80;
  std::uint32_t rows = 24;
  std::uint64_t timeout_ms = 0;  // 0: none
  std::uint32_t kill_signal = 15;
  std::int64_t grace_ms = 5000;  // from kill_signal to SIGKILL; -1: never
  std::uint32_t window = 0;      // credit of each framed output stream to begin with, in bytes
  std::uint32_t extra = 0;       // descriptors passed after stdio's: the process's 3, 4 and on
};
Encoded encode(const Spawn& spawn);
Result<Spawn> decode_spawn(Bytes bytes);

struct Spawned {
  std::uint32_t pid = 0;  // as seen in the box
};
Encoded encode(const Spawned& spawned);
Result<Spawned> decode_spawned(Bytes bytes);

// Where a spawn failed: what the SDK's message names.
enum class SpawnStep : std::uint8_t {
  kDescriptors = 1,  // pipes, terminal
  kProcess = 2,      // clone: at the process limit EAGAIN
  kUser = 3,         // os_error 0: no such user; EINVAL: this host maps one id only
  kWorkingDirectory = 4,
  kLimits = 5,
  kProgram = 6,  // lookup and exec
};
struct SpawnFailed {
  SpawnStep step{};
  std::uint32_t os_error = 0;
};
Encoded encode(const SpawnFailed& failed);
Result<SpawnFailed> decode_spawn_failed(Bytes bytes);

struct Exited {
  bool signaled = false;
  std::uint32_t code = 0;  // exit code, or the signal's number
  bool timed_out = false;
  bool forced = false;  // SIGKILL followed because killing gently was of no avail
  std::uint64_t user_us = 0;
  std::uint64_t system_us = 0;
  std::uint64_t max_rss_bytes = 0;
  std::uint64_t started_at_ms = 0;  // of the epoch
  std::uint64_t duration_us = 0;    // by a monotonic clock
  // Framed streams: how many bytes the stream holds up to the process's end, those sent included. What comes beyond is
  // of others that still hold the pipe.
  std::uint64_t own_stdout = 0;
  std::uint64_t own_stderr = 0;
};
Encoded encode(const Exited& exited);
Result<Exited> decode_exited(Bytes bytes);

enum class KillScope : std::uint8_t { kGroup = 0, kProcess = 1 };
struct Kill {
  std::uint32_t signal = 0;
  KillScope scope = KillScope::kGroup;
  std::int64_t force_after_ms = -1;  // then SIGKILL; -1: never
};
Encoded encode(const Kill& kill);
Result<Kill> decode_kill(Bytes bytes);

struct Killed {
  bool delivered = false;  // the signal reached a live process
  std::uint32_t os_error = 0;
};
Encoded encode(const Killed& killed);
Result<Killed> decode_killed(Bytes bytes);

struct Resize {
  std::uint32_t cols = 0;
  std::uint32_t rows = 0;
};
Encoded encode(const Resize& resize);
Result<Resize> decode_resize(Bytes bytes);

struct Resized {
  std::uint32_t os_error = 0;
};
Encoded encode(const Resized& resized);
Result<Resized> decode_resized(Bytes bytes);

// kInput and kOutput: the stream, then its bytes as they are.
struct Data {
  Stream stream{};
  Bytes bytes;  // borrowed from the frame
};
inline constexpr std::size_t kMaxData = 32 * 1024 - 16 - 1;
Result<Data> decode_data(Bytes bytes);

// kOutputEnd, kDiscard.
struct OfStream {
  Stream stream{};
};
Encoded encode(const OfStream& of);
Result<OfStream> decode_of_stream(Bytes bytes);

struct Credit {
  Stream stream{};
  std::uint32_t bytes = 0;
};
Encoded encode(const Credit& credit);
Result<Credit> decode_credit(Bytes bytes);

// ---------- virtual machines ----------
enum class FileSystem : std::uint8_t { kExt4 = 1, kErofs = 2 };

struct Machine {
  std::string hostname;
  std::string machine_id;            // 32 digits of hex
  std::int64_t realtime_ns = 0;      // since the epoch, as the host sends it
  std::vector<std::byte> entropy;    // for the kernel's pool
  std::string root_serial;           // of the disk that holds the root file system; empty: none, the initrd stays root
  std::uint32_t root_partition = 0;  // 0: the whole disk
  FileSystem file_system = FileSystem::kExt4;
  bool root_readonly = false;  // a private layer in memory of `layer_bytes` lies above it
  std::uint64_t layer_bytes = 0;
  std::uint64_t processes = 0;  // most processes at once; 0: no limit
};
Encoded encode(const Machine& machine);
Result<Machine> decode_machine(Bytes bytes);

struct MachineReady {
  bool own_identity = true;  // its /etc/machine-id says so too: a copy of it can become another machine
};
Encoded encode(const MachineReady& ready);
Result<MachineReady> decode_machine_ready(Bytes bytes);

struct MachineFailed {
  std::string step;  // what the agent was doing, in words
  std::uint32_t os_error = 0;
};
Encoded encode(const MachineFailed& failed);
Result<MachineFailed> decode_machine_failed(Bytes bytes);

struct Freeze {
  bool file_systems = false;  // nothing is written to the disks either, and what was written is on them
};
Encoded encode(const Freeze& freeze);
Result<Freeze> decode_freeze(Bytes bytes);

struct Frozen {
  std::uint32_t os_error = 0;  // not 0: it is not, and goes on
};
Encoded encode(const Frozen& frozen);
Result<Frozen> decode_frozen(Bytes bytes);

// ---------- boxes ----------
// A limit, and whether the caller named it: then a host that cannot enforce it must refuse.
struct Limit {
  std::uint64_t value = 0;  // 0: none
  bool asked = false;
};

enum class Root : std::uint8_t { kHost = 0, kDirectory = 1 };

// Descriptors that travel with it: the agent's end of the first session, the agent's binary, the box's own directory,
// its lock (held, and to be held as long as the keeper lives), and for kDirectory the root file system's.
struct Launch {
  std::string id;
  std::string hostname;
  Root root = Root::kHost;
  bool keep = false;  // the layer lies in the box's directory and outlives this launch; else it and the directory go
  bool temporary_layer = false;  // the layer goes even where the directory stays
  bool exclusive = false;        // there is no session beside the owner's
  std::uint64_t storage_bytes = 0;
  bool storage_asked = false;
  Limit memory_bytes;
  Limit vcpus;
  Limit processes;
  std::uint32_t first_uid = 0;  // under root: the box's range of 65536 ids; 0: the keeper picks one
};
Encoded encode(const Launch& launch);
Result<Launch> decode_launch(Bytes bytes);

struct Launched {
  std::uint32_t pid = 0;        // of PID 1, as the host sees it
  std::uint32_t first_uid = 0;  // 0: one id only
  std::vector<std::string> warnings;
};
Encoded encode(const Launched& launched);
Result<Launched> decode_launched(Bytes bytes);

// kLaunchFailed, kRefused.
struct LaunchFailed {
  std::uint32_t code = 0;  // an ErrorCode
  std::uint32_t os_error = 0;
  std::string message;
  std::string path;
  std::string hint;
};
Encoded encode(const LaunchFailed& failed);
Result<LaunchFailed> decode_launch_failed(Bytes bytes);

struct Stop {
  std::uint64_t grace_ms = 0;  // for executions to end and PID 1 to follow; 0: at once
};
Encoded encode(const Stop& stop);
Result<Stop> decode_stop(Bytes bytes);

struct Ended {
  bool asked = false;   // by kStop
  bool forced = false;  // the grace ran out
  bool signaled = false;
  std::uint32_t code = 0;  // of PID 1
  std::uint64_t oom_kills = 0;
  std::vector<std::string> leftovers;  // what could not be removed, and why
};
Encoded encode(const Ended& ended);
Result<Ended> decode_ended(Bytes bytes);

// What the keeper does with a descriptor that was left with it, until somebody adopts the box.
enum class Left : std::uint8_t {
  kHold = 0,
  kDrain = 1,  // reads what comes and throws it away
  kLast = 2,   // whatever comes means that the box is over
};
// With it travels a descriptor for each of `descriptors`.
struct Leave {
  std::string state;  // the owner's own text, for the next one
  std::vector<Left> descriptors;
};
Encoded encode(const Leave& leave);
Result<Leave> decode_leave(Bytes bytes);

// To who adopts: what was left, descriptors and text. To who attaches: a new session.
struct Given {
  std::uint64_t started_at_ms = 0;  // of the epoch
  std::uint32_t first_uid = 0;
  std::vector<std::string> warnings;
  std::string state;
};
Encoded encode(const Given& given);
Result<Given> decode_given(Bytes bytes);

}  // namespace sluicebox::protocol

// frame.h: the unit that crosses between host, keeper and agent: a fixed header, then a payload.
// Knows: bytes. Does not know: what a message means, sockets, ports.
// Threads: values only.
//
// On a SEQPACKET socket one packet is one frame; on a byte stream (a virtio-serial port) frames follow each other. A
// message that is longer than a frame travels in fragments: equal type, channel and request, `more` on all but the
// last.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::protocol {

// Both ends refuse any other: host, keeper and agent are built together and shipped together.
inline constexpr std::uint16_t kVersion = 1;

// A guest's virtio-serial driver cuts writes at 32 KiB.
inline constexpr std::size_t kMaxFrame = std::size_t{32} * 1024;
inline constexpr std::size_t kHeaderSize = 16;
inline constexpr std::size_t kMaxPayload = kMaxFrame - kHeaderSize;
// Of a message with all its fragments: more than the kernel takes for a program's arguments and environment (6 MiB).
inline constexpr std::size_t kMaxMessage = std::size_t{16} * 1024 * 1024;

// Numbers are the wire's and are never reused.
enum class Type : std::uint8_t {
  kHello = 1,  // first on every session, both ways
  kPing = 2,   // host to agent: answered at once by kPong, whatever else it does
  kPong = 3,

  // host to agent; `channel` is the execution, a number that the host chose
  kSpawn = 10,
  kKill = 11,
  kResize = 12,
  kInput = 13,     // bytes for stdin
  kInputEnd = 14,  // stdin's end of file; on a terminal its EOF character
  kDiscard = 15,   // nobody will read this output: drain it and throw it away

  // agent to host
  kSpawned = 30,
  kSpawnFailed = 31,
  kOutput = 32,     // bytes of a stream, within the credit that the host gave
  kOutputEnd = 33,  // the stream's end of file
  kExited = 34,     // the last that is said of an execution's process
  kKilled = 35,
  kResized = 36,
  kInputClosed = 37,  // nobody reads stdin any more

  // both ways: how many bytes more may be sent
  kCredit = 40,

  // host to agent, and its answer: who speaks here goes, and another will. The executions end, and nothing of them is
  // said any more.
  kPart = 41,
  kParted = 42,

  // keeper to agent
  kSession = 50,   // with a socket: a session of its own begins on it
  kShutdown = 51,  // end all executions, then yourself

  // host to the agent of a virtual machine, on its first session, and its answers
  kMachine = 54,  // once, before anything else: which machine this is and what its root is made of
  kMachineReady = 55,
  kMachineFailed = 56,
  // The machine is about to be looked at from outside: the agent falls silent, and so does the host, until kThaw. Who
  // greets it instead is another host, and it another machine: its executions are none of theirs.
  kFreeze = 57,
  kFrozen = 58,
  kThaw = 59,

  // host to keeper, and its answers
  kLaunch = 60,
  kLaunched = 61,
  kLaunchFailed = 62,
  kStop = 63,
  kEnded = 64,
  kPrepare = 65,  // to a keeper, with the agent's binary: build ahead what the usual order will ask for; not answered

  // The owner goes, and the box runs on: the keeper holds for the next owner what travels with kLeave.
  kLeave = 66,
  kLeft = 67,
  // On the keeper's socket, each with a Hello. Answered by kGiven, or by kRefused.
  kAdopt = 68,   // be its owner from here on, with all that was left
  kAttach = 69,  // have a session beside the owner's
  kGiven = 70,
  kRefused = 71,
};

struct Header {
  std::uint32_t length = 0;  // of the payload
  Type type{};
  bool more = false;          // a fragment that is not the last
  std::uint32_t channel = 0;  // an execution; 0: the session itself
  std::uint32_t request = 0;  // repeated in the answer; 0: nothing to answer
};

std::array<std::byte, kHeaderSize> encode(const Header& header);
// kIo when it cannot be a frame of ours: an unknown type, a length past kMaxPayload, reserved bits.
Result<Header> decode_header(Bytes bytes);

// What a send or receive that moved nothing answers: kClosed, with os_error EAGAIN when there is no room or nothing to
// read yet, else 0: the peer hung up.
Error closed(int os_error);

}  // namespace sluicebox::protocol

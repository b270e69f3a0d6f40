#include "protocol/frame.h"

#include <cerrno>

namespace sluicebox::protocol {

namespace {

constexpr std::uint8_t kMore = 1;

bool is_type(std::uint8_t number) {
  switch (static_cast<Type>(number)) {
    case Type::kHello:
    case Type::kPing:
    case Type::kPong:
    case Type::kSpawn:
    case Type::kKill:
    case Type::kResize:
    case Type::kInput:
    case Type::kInputEnd:
    case Type::kDiscard:
    case Type::kSpawned:
    case Type::kSpawnFailed:
    case Type::kOutput:
    case Type::kOutputEnd:
    case Type::kExited:
    case Type::kKilled:
    case Type::kResized:
    case Type::kInputClosed:
    case Type::kCredit:
    case Type::kPart:
    case Type::kParted:
    case Type::kSession:
    case Type::kShutdown:
    case Type::kMachine:
    case Type::kMachineReady:
    case Type::kMachineFailed:
    case Type::kFreeze:
    case Type::kFrozen:
    case Type::kThaw:
    case Type::kLaunch:
    case Type::kLaunched:
    case Type::kLaunchFailed:
    case Type::kStop:
    case Type::kPrepare:
    case Type::kEnded:
    case Type::kLeave:
    case Type::kLeft:
    case Type::kAdopt:
    case Type::kAttach:
    case Type::kGiven:
    case Type::kRefused:
      return true;
  }
  return false;
}

}  // namespace

// length u32, type u8, flags u8, reserved u16, channel u32, request u32; all little-endian
std::array<std::byte, kHeaderSize> encode(const Header& header) {
  std::array<std::byte, kHeaderSize> bytes{};
  store_le32(bytes.data(), header.length);
  bytes[4] = static_cast<std::byte>(header.type);
  bytes[5] = static_cast<std::byte>(header.more ? kMore : 0);
  store_le32(bytes.data() + 8, header.channel);
  store_le32(bytes.data() + 12, header.request);
  return bytes;
}

Result<Header> decode_header(Bytes bytes) {
  if (bytes.size() < kHeaderSize) return Error(ErrorCode::kIo, "a frame is shorter than its header");
  const auto type = std::to_integer<std::uint8_t>(bytes[4]);
  const auto flags = std::to_integer<std::uint8_t>(bytes[5]);
  Header header{.length = load_le32(bytes.data()),
                .type = static_cast<Type>(type),
                .more = flags == kMore,
                .channel = load_le32(bytes.data() + 8),
                .request = load_le32(bytes.data() + 12)};
  if (!is_type(type)) return Error(ErrorCode::kIo, "a frame has the unknown type " + std::to_string(type));
  if (header.length > kMaxPayload)
    return Error(ErrorCode::kIo, "a frame claims " + std::to_string(header.length) + " bytes");
  if (flags > kMore || load_le16(bytes.data() + 6) != 0) return Error(ErrorCode::kIo, "a frame has reserved bits set");
  return header;
}

Error closed(int os_error) {
  Error error(ErrorCode::kClosed, os_error == EAGAIN ? "the peer is not ready" : "the peer hung up");
  error.os_error = os_error == EAGAIN ? EAGAIN : 0;
  return error;
}

}  // namespace sluicebox::protocol

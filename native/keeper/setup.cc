#include "keeper/setup.h"

#include <array>

namespace sluicebox::keeper {

Status say(int socket, protocol::Type word, Bytes payload, std::span<const int> descriptors) {
  protocol::Header header;
  header.type = word;
  return protocol::send_message(socket, header, payload, descriptors);
}

Result<SetupWord> hear(int socket) {
  std::array<std::byte, protocol::kMaxPayload> buffer;
  auto frame = TRY(protocol::receive_frame(socket, buffer));
  SetupWord word;
  word.type = frame.header.type;
  word.payload.assign(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(frame.length));
  word.descriptors = std::move(frame.descriptors);
  return word;
}

}  // namespace sluicebox::keeper

#include "keeper/setup.h"

#include <array>

#include "protocol/wire.h"

namespace sluicebox::keeper {

std::vector<std::byte> encode(const Rest& rest) {
  protocol::Writer writer;
  writer.text(rest.root.hostname);
  writer.text(rest.root.home);
  writer.u64(rest.root.storage);
  writer.u64(rest.processes);
  return writer.take();
}

Result<Rest> decode_rest(Bytes bytes) {
  protocol::Reader reader(bytes);
  Rest rest;
  rest.root.hostname = reader.text();
  rest.root.home = reader.text();
  rest.root.storage = reader.u64();
  rest.processes = reader.u64();
  if (!reader.ok()) return Error(ErrorCode::kInternal, "the keeper's word for PID 1 is cut short");
  return rest;
}

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

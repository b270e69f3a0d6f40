// protocol_frame_fuzz.cc: any bytes give frames and messages or a refusal; what decodes has one form on the wire.
// Input: frames one after the other, as on a byte stream.
#include <algorithm>
#include <vector>

#include "fuzz/target.h"
#include "protocol/assembler.h"
#include "protocol/frame.h"
#include "protocol/messages.h"
#include "test/protocol/samples.h"

namespace sluicebox::protocol {

namespace {

using fuzz::require;

constexpr std::size_t kLimit = 128 * 1024;

// Returns whether it is a message of any kind.
bool check_payload(Bytes payload) {
  static const std::vector<test::Sample> every = test::samples();
  bool decoded = false;
  for (const test::Sample& sample : every) {
    const auto again = sample.again(payload);
    if (!again.ok()) {
      require(again.error().code == ErrorCode::kIo, "S15: a refusal is an input error");
      continue;
    }
    require(std::equal(payload.begin(), payload.end(), again.value().begin(), again.value().end()),
            "S15: a message has one form");
    decoded = true;
  }
  const auto data = decode_data(payload);
  require(!data.ok() || data.value().bytes.size() + 1 == payload.size(), "S15: data is all but its first byte");
  return decoded;
}

bool look(Bytes left) {
  Assembler assembler(kLimit);
  bool decoded = false;
  while (true) {
    const auto header = decode_header(left);
    if (!header.ok()) return decoded;
    require(header.value().length <= kMaxPayload, "S15: a frame's length is bounded");
    const auto head = encode(header.value());
    require(std::equal(head.begin(), head.end(), left.begin()), "S15: a header has one form");
    left = left.subspan(kHeaderSize);
    if (header.value().length > left.size()) return decoded;
    const auto joined = assembler.add(header.value(), left.first(header.value().length));
    left = left.subspan(header.value().length);
    if (!joined.ok()) return decoded;
    if (!joined.value()) continue;
    require(joined.value()->payload.size() <= kLimit, "S15: a message's length is bounded");
    decoded = check_payload(joined.value()->payload) || decoded;
  }
}

}  // namespace

}  // namespace sluicebox::protocol

bool sluicebox::fuzz::try_input(Bytes input) { return protocol::look(input); }

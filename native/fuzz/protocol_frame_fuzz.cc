// protocol_frame_fuzz.cc: any bytes give frames and messages or a refusal; what decodes has one form on the wire.
// Input: frames one after the other, as on a byte stream.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "protocol/assembler.h"
#include "protocol/frame.h"
#include "protocol/messages.h"
#include "test/protocol/samples.h"

namespace {

using namespace sluicebox;            // NOLINT(google-build-using-namespace): a program of its own
using namespace sluicebox::protocol;  // NOLINT(google-build-using-namespace)

constexpr std::size_t kLimit = 128 * 1024;

std::uint64_t runs = 0;
std::uint64_t deepest = 0;

// The target is worth nothing if no input gets through to the last assertion.
void tell() {
  std::printf("protocol_frame_fuzz: deepest assertion ran %llu times\n", static_cast<unsigned long long>(deepest));
  std::fflush(stdout);
  if (runs > 10000 && deepest == 0) std::_Exit(1);
}

void require(bool holds, const char* invariant) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", invariant);
  std::abort();
}

void check_payload(Bytes payload) {
  static const std::vector<test::Sample> every = test::samples();
  for (const test::Sample& sample : every) {
    const auto again = sample.again(payload);
    if (!again.ok()) {
      require(again.error().code == ErrorCode::kIo, "S15: a refusal is an input error");
      continue;
    }
    require(std::equal(payload.begin(), payload.end(), again.value().begin(), again.value().end()),
            "S15: a message has one form");
    ++deepest;
  }
  const auto data = decode_data(payload);
  require(!data.ok() || data.value().bytes.size() + 1 == payload.size(), "S15: data is all but its first byte");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  std::atexit(tell);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ++runs;
  Bytes left(reinterpret_cast<const std::byte*>(data), size);  // the fuzzer's input, as bytes
  Assembler assembler(kLimit);
  while (true) {
    const auto header = decode_header(left);
    if (!header.ok()) return 0;
    require(header.value().length <= kMaxPayload, "S15: a frame's length is bounded");
    const auto head = encode(header.value());
    require(std::equal(head.begin(), head.end(), left.begin()), "S15: a header has one form");
    left = left.subspan(kHeaderSize);
    if (header.value().length > left.size()) return 0;
    const auto joined = assembler.add(header.value(), left.first(header.value().length));
    left = left.subspan(header.value().length);
    if (!joined.ok()) return 0;
    if (!joined.value()) continue;
    require(joined.value()->payload.size() <= kLimit, "S15: a message's length is bounded");
    check_payload(joined.value()->payload);
  }
}

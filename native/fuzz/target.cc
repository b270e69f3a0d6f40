// The two functions that libFuzzer calls, the same for every target.
#include "fuzz/target.h"

#include <cstdint>
#include <cstring>

namespace {

// Enough for an empty corpus to grow to something that is looked at to the end.
constexpr std::uint64_t kManyRuns = 10000;

const char* name = "";
std::uint64_t runs = 0;
std::uint64_t deepest = 0;

void tell() {
  std::printf("%s: deepest assertion ran %llu times\n", name, static_cast<unsigned long long>(deepest));
  std::fflush(stdout);
  if (runs > kManyRuns && deepest == 0) std::_Exit(1);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc > 0) {
    const char* slash = std::strrchr((*argv)[0], '/');
    name = slash == nullptr ? (*argv)[0] : slash + 1;
  }
  std::atexit(tell);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ++runs;
  // The fuzzer's input, as bytes.
  if (sluicebox::fuzz::try_input({reinterpret_cast<const std::byte*>(data), size})) ++deepest;
  return 0;
}

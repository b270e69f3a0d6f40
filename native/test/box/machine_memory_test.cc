#include "box/machine_memory.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace sluicebox::box::test {

namespace {

constexpr std::uint64_t kSize = std::uint64_t{8} << 20;

}  // namespace

TEST_CASE("B21: a template's memory cannot be changed by who maps it, and takes what is not zero") {
  const UniqueFd memory = blank_memory(kSize).value();
  CHECK(::pwrite(memory.get(), "warm", 4, 5 << 20) == 4);
  REQUIRE(seal(memory, kSize).ok());
  struct stat facts{};
  REQUIRE(::fstat(memory.get(), &facts) == 0);
  CHECK(facts.st_size == kSize);
  CHECK(facts.st_blocks * 512 <= 8192);

  CHECK(::pwrite(memory.get(), "cold", 4, 5 << 20) < 0);
  CHECK(::ftruncate(memory.get(), 4096) != 0);
  CHECK(::fallocate(memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kSize) != 0);
  // As QEMU opens it: for writing, by its name in /proc.
  const UniqueFd again(::open(("/proc/self/fd/" + std::to_string(memory.get())).c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(again.valid());
  CHECK(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0) == MAP_FAILED);
  void* own = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, again.get(), 0);
  REQUIRE(own != MAP_FAILED);
  std::memcpy(static_cast<char*>(own) + (5 << 20), "mine", 4);
  char there[4];
  CHECK(::pread(from_the_beginning(memory).value().get(), there, 4, 5 << 20) == 4);
  CHECK(std::memcmp(there, "warm", 4) == 0);
  ::munmap(own, kSize);
}

}  // namespace sluicebox::box::test

#include "box/qemu_command.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace sluicebox::box {

namespace {

QemuPlan plan_of() {
  return {.memory_bytes = std::uint64_t{256} << 20,
          .vcpus = 2,
          .time_stamp_khz = 2'000'000,
          .kernel = 3,
          .initrd = 4,
          .agent = 5,
          .qmp = 6,
          .console = 7,
          .disks = {{.writable = true,
                     .layers = {{.format = image::DiskFormat::kQcow2, .fd = 8},
                                {.format = image::DiskFormat::kRaw, .fd = 9}}},
                    {.writable = false, .layers = {{.format = image::DiskFormat::kQcow2, .fd = 10}}}}};
}

bool has(const std::vector<std::string>& line, const std::string& word) {
  return std::find(line.begin(), line.end(), word) != line.end();
}

std::string after(const std::vector<std::string>& line, const std::string& word, int nth = 0) {
  auto at = line.begin();
  for (int i = 0; i <= nth; ++i) at = std::find(at, line.end(), word) + 1;
  return *at;
}

}  // namespace

TEST_SUITE("QEMU's command line") {
  TEST_CASE("S40 all four denials, no default devices, no monitor, no network, no display") {
    const auto line = qemu_command(plan_of());
    CHECK(after(line, "-sandbox") == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    for (const char* word : {"-nodefaults", "-no-user-config", "-no-reboot"}) CHECK(has(line, word));
    CHECK(after(line, "-display") == "none");
    CHECK(after(line, "-append").ends_with(" tsc_early_khz=2000000"));
    CHECK(after(line, "-mon") == "chardev=qmp,mode=control");
    for (const std::string& word : line) CHECK(word.find("netdev") == std::string::npos);
  }

  TEST_CASE("S41 every file is a descriptor: no path of the host but QEMU's own") {
    for (const std::string& word : qemu_command(plan_of())) {
      CAPTURE(word);
      for (std::size_t at = word.find('/'); at != std::string::npos; at = word.find('/', at + 1)) {
        const std::string rest = word.substr(at);
        const bool known = rest.rfind("/usr/bin/qemu-system-", 0) == 0 || rest.rfind("/proc/self/fd/", 0) == 0 ||
                           rest.rfind("/dev/fdset/", 0) == 0 || rest == "/dev/urandom";
        CHECK(known);
        at = word.find_first_of("\",", at);
        if (at == std::string::npos) break;
      }
    }
  }

  TEST_CASE("S40 only the first layer of a writable disk may be written") {
    const auto line = qemu_command(plan_of());
    const std::string first = after(line, "-blockdev");
    CHECK(first.find("\"node-name\":\"disk0\",\"read-only\":false") != std::string::npos);
    CHECK(first.find("\"node-name\":\"disk0-1\",\"read-only\":true") != std::string::npos);
    const std::string second = after(line, "-blockdev", 1);
    CHECK(second.find("\"node-name\":\"disk1\",\"read-only\":true") != std::string::npos);
    CHECK(second.find("\"backing\":null") != std::string::npos);
  }
}

}  // namespace sluicebox::box

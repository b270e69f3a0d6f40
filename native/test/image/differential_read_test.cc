#include <doctest/doctest.h>

#include <fstream>

#include "image/ops/check.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::qemu_img;
using testing::TempDir;

void must(const testing::RunResult& outcome) {
  INFO(outcome.output);
  REQUIRE(outcome.exit_code == 0);
}

// What qemu-img reads of the image and what we read are the same bytes, and both find it clean.
void compare_reads(const TempDir& directory, const std::string& path) {
  const std::string theirs = testing::guest_bytes_by_qemu(path, "qcow2", directory.file("scratch.raw"));
  const Result<std::string> ours = testing::guest_bytes(path, DiskFormat::kQcow2);
  INFO((ours.ok() ? "" : ours.error().message));
  REQUIRE(ours.ok());
  CHECK(ours.value().size() == theirs.size());
  CHECK((ours.value() == theirs));
  testing::Operation operation;
  const Result<CheckReport> report = check_image(path, {}, operation.context);
  REQUIRE(report.ok());
  CHECK(report.value().corruptions == 0);
  CHECK(report.value().leaks == 0);
}

// Text that deflates, and differs everywhere.
void write_source(const std::string& path, std::uint64_t size) {
  std::ofstream file(path, std::ios::binary);
  std::uint64_t number = 0;
  for (std::uint64_t at = 0; at < size; at += 16) {
    if ((at >> 17) % 3 == 1) {
      file.seekp(static_cast<std::streamoff>(at + 16));  // holes of 128 KiB
      continue;
    }
    std::string line = std::to_string(number += 7919);
    line.resize(16, 'a');
    file << line;
  }
}

}  // namespace

TEST_CASE("I16: what qemu-io wrote, in any width, version and cluster size, reads the same") {
  for (const char* options :
       {"cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=65536", "cluster_size=2097152",
        "compat=0.10", "compat=0.10,cluster_size=512", "refcount_bits=64", "lazy_refcounts=on",
        "preallocation=metadata", "extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M",
        "extended_l2=on,preallocation=metadata"}) {
    CAPTURE(options);
    const TempDir directory;
    const std::string path = directory.file("a");
    must(qemu_img({"create", "-q", "-f", "qcow2", "-o", options, path, "6M"}));
    must(testing::qemu_io(path, "qcow2",
                          {"write -P 1 0 64k", "write -P 2 1000k 333k", "write -z 1100k 100k", "write -P 3 5000k 1000k",
                           "discard 5100k 200k", "write -P 4 2M 512", "write -z -u 2M 512"}));
    compare_reads(directory, path);
  }
}

TEST_CASE("I16: compressed images read the same, at every cluster size") {
  const TempDir directory;
  const std::string source = directory.file("source");
  write_source(source, 5 << 20);
  for (const char* cluster : {"512", "4096", "65536", "2097152", "65536,extended_l2=on"}) {
    CAPTURE(cluster);
    const std::string path = directory.file("a");
    must(qemu_img(
        {"convert", "-c", "-f", "raw", "-O", "qcow2", "-o", std::string("cluster_size=") + cluster, source, path}));
    compare_reads(directory, path);
    CHECK((testing::guest_bytes(path, DiskFormat::kQcow2).value() == testing::slurp(source)));
  }
}

TEST_CASE("I30: an image with internal snapshots reads as its active state") {
  const TempDir directory;
  const std::string path = directory.file("a");
  must(qemu_img({"create", "-q", "-f", "qcow2", path, "4M"}));
  must(testing::qemu_io(path, "qcow2", {"write -P 1 0 2M"}));
  must(qemu_img({"snapshot", "-c", "one", path}));
  must(testing::qemu_io(path, "qcow2", {"write -P 2 1M 64k", "write -P 3 3M 64k"}));
  must(qemu_img({"snapshot", "-c", "two", path}));
  must(testing::qemu_io(path, "qcow2", {"write -P 4 0 512"}));
  compare_reads(directory, path);
  must(qemu_img({"snapshot", "-a", "one", path}));
  must(qemu_img({"snapshot", "-d", "two", path}));
  compare_reads(directory, path);
}

TEST_CASE("I23: chains of layers of different sizes read the same") {
  const TempDir directory;
  std::string below = "raw";
  must(qemu_img({"create", "-q", "-f", "raw", directory.file("raw"), "3M"}));
  must(testing::qemu_io(directory.file("raw"), "raw", {"write -P 9 0 3M"}));
  std::string format = "raw";
  for (const auto& [name, size, write] :
       {std::tuple{"a", "5M", "write -P 1 4M 64k"}, std::tuple{"b", "1M", "write -P 2 512k 64k"},
        std::tuple{"c", "4M", "write -P 3 3M 64k"}, std::tuple{"d", "4000k", "write -z 0 64k"}}) {
    CAPTURE(name);
    const std::string path = directory.file(name);
    must(qemu_img({"create", "-q", "-f", "qcow2", "-b", below, "-F", format, path, size}));
    must(testing::qemu_io(path, "qcow2", {write}));
    compare_reads(directory, path);
    below = name;
    format = "qcow2";
  }
}

}  // namespace sluicebox::image

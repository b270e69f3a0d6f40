// rebase_fixture.h: an overlay between an old and a new base, made by qemu-img, with every kind of cluster.
// Knows: qemu-img, qemu-io. Threads: one test.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "image/ops/rebase.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image::testing {

struct RebaseShape {
  std::string options = "cluster_size=65536";  // of the overlay
  std::uint64_t size = 4u << 20;
  std::uint64_t old_size = 4u << 20;
  std::uint64_t new_size = 4u << 20;
  std::string old_format = "raw";
  std::string new_format = "qcow2";
  // Writes of qemu-io, cut to what fits.
  std::vector<std::string> old_writes = {"write -P 0x11 0 1536k", "write -P 0x12 3M 100k"};
  std::vector<std::string> new_writes = {"write -P 0x11 0 1M", "write -P 0x21 1M 300k", "write -P 0x22 2M 70k"};
  std::vector<std::string> overlay_writes = {"write -P 0x31 128k 64k", "write -z 512k 64k", "write -P 0x32 3000k 33k"};
};

class RebaseFixture {
 public:
  explicit RebaseFixture(const RebaseShape& shape) : shape_(shape) {
    make(old_base, shape.old_format, shape.old_size, shape.old_writes);
    make(new_base, shape.new_format, shape.new_size, shape.new_writes);
    must(qemu_img({"create", "-q", "-f", "qcow2", "-b", "old", "-F", shape.old_format, "-o", shape.options, overlay,
                   std::to_string(shape.size)}));
    for (const std::string& write : shape.overlay_writes) qemu_io(overlay, "qcow2", {write});
  }

  TempDir directory;
  std::string old_base = directory.file("old");
  std::string new_base = directory.file("new");
  std::string overlay = directory.file("overlay.qcow2");

  RebaseOptions onto_new() const {
    RebaseOptions options;
    options.backing = "new";
    options.backing_format = format_from_name(shape_.new_format);
    return options;
  }
  std::string copy_of_overlay(const std::string& name) const {
    std::filesystem::copy_file(overlay, directory.file(name), std::filesystem::copy_options::overwrite_existing);
    return directory.file(name);
  }
  // The oracle's word on what a guest sees.
  std::string bytes(const std::string& path) const {
    return guest_bytes_by_qemu(path, "qcow2", directory.file("scratch.raw"));
  }
  void must(const RunResult& outcome) const {
    INFO(outcome.output);
    REQUIRE(outcome.exit_code == 0);
  }

 private:
  void make(const std::string& path, const std::string& format, std::uint64_t size,
            const std::vector<std::string>& writes) {
    must(qemu_img({"create", "-q", "-f", format, path, std::to_string(size)}));
    for (const std::string& write : writes) qemu_io(path, format, {write});
  }
  RebaseShape shape_;
};

}  // namespace sluicebox::image::testing

// qemu_command.h: the command line of one virtual machine.
// Knows: QEMU's options. Does not know: processes, paths: every file is a descriptor.
// Threads: values only.
//
// Nothing that a caller named gets into it, so no comma, equals sign or brace of theirs can change an option.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "image/disk_format.h"

namespace sluicebox::box {

inline constexpr const char* kQemuProgram = "/usr/bin/qemu-system-x86_64";

struct QemuLayer {
  image::DiskFormat format{};
  int fd = -1;
};
struct QemuDisk {
  bool writable = true;
  std::vector<QemuLayer> layers;  // nearest first; none: nothing is there but its size
  std::uint64_t size = 0;
};
struct QemuPlan {
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 1;
  std::optional<std::uint64_t> time_stamp_khz = std::nullopt;  // see host_clock.h
  // Numbers as QEMU will have them.
  int kernel = -1;  // with the initrd; none of a machine that goes on from a memory
  int initrd = -1;
  // What the machine's memory is mapped from: its own changes stay its own, or are the file's.
  int memory = -1;
  bool memory_shared = false;
  int agent = -1;
  int qmp = -1;
  int console = -1;
  std::vector<QemuDisk> disks;
};

// Of the disk, as the guest sees it in /sys/block/*/serial.
std::string disk_serial(std::size_t disk);
// The root of the first layer's block nodes, by which QMP speaks of the disk.
std::string disk_node(std::size_t disk);

// The program's name first.
std::vector<std::string> qemu_command(const QemuPlan& plan);

}  // namespace sluicebox::box

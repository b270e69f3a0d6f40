// test_kernel.h: kernels that tests make: a tree of modules, a packed image; and how an initrd is read again.
// Knows: ELF, cpio and the x86 boot protocol, each from its own end: nothing of box/ is used. Threads: one.
#pragma once

#include <doctest/doctest.h>
#include <lz4.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "box/kernel.h"
#include "test/image/temp_dir.h"

namespace sluicebox::box::test {

using Buffer = std::vector<std::byte>;

inline void put(Buffer& buffer, std::string_view text) {
  const Bytes bytes = as_bytes(text);
  buffer.insert(buffer.end(), bytes.begin(), bytes.end());
}
inline void write_file(const std::string& path, Bytes bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// ---------- ELF ----------

// A module with no more than its .modinfo: header, names, .modinfo, table of three sections.
inline Buffer module_file(std::string_view modinfo) {
  const std::string names("\0.modinfo\0.shstrtab\0", 20);
  Buffer file(64);
  put(file, names);
  put(file, modinfo);
  const std::size_t table = file.size();
  std::memcpy(file.data(), "\177ELF\2\1\1", 7);
  store_le64(file.data() + 40, table);
  store_le16(file.data() + 58, 64);  // bytes of a section's entry
  store_le16(file.data() + 60, 3);
  store_le16(file.data() + 62, 2);  // which one holds the names
  file.resize(table + 3 * std::size_t{64});
  const auto section = [&](std::size_t index, std::uint32_t name, std::uint32_t type, std::size_t offset,
                           std::size_t size) {
    std::byte* entry = file.data() + table + index * 64;
    store_le32(entry, name);
    store_le32(entry + 4, type);
    store_le64(entry + 24, offset);
    store_le64(entry + 32, size);
  };
  section(1, 1, 1, 64 + names.size(), modinfo.size());
  section(2, 10, 3, 64, names.size());
  return file;
}
inline Buffer module_needing(const std::string& needs) {
  return module_file(std::string("license=GPL\0", 12) + "depends=" + needs + std::string("\0name=x\0", 8));
}

// A vmlinux with one segment of notes.
inline Buffer vmlinux_file(std::uint32_t note_type = 18, std::size_t more = 0) {
  Buffer file(64 + 56 + 20);
  std::memcpy(file.data(), "\177ELF\2\1\1", 7);
  store_le64(file.data() + 32, 64);
  store_le16(file.data() + 54, 56);
  store_le16(file.data() + 56, 1);
  std::byte* segment = file.data() + 64;
  store_le32(segment, 4);
  store_le64(segment + 8, 64 + 56);
  store_le64(segment + 32, 20);
  std::byte* note = segment + 56;
  store_le32(note, 4);
  store_le32(note + 4, 4);
  store_le32(note + 8, note_type);
  std::memcpy(note + 12, "Xen", 4);
  file.resize(file.size() + more, std::byte{7});
  return file;
}

// ---------- bzImage ----------

// LZ4's legacy frame and the unpacked size after it, in blocks of 8 MiB.
inline Buffer lz4_payload(Bytes unpacked) {
  Buffer payload(4);
  store_le32(payload.data(), 0x184c2102);
  for (std::size_t at = 0; at < unpacked.size(); at += std::size_t{8} << 20) {
    const Bytes block = unpacked.subspan(at, std::min(unpacked.size() - at, std::size_t{8} << 20));
    std::string packed(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(block.size()))), '\0');
    const int size = LZ4_compress_default(reinterpret_cast<const char*>(block.data()), packed.data(),
                                          static_cast<int>(block.size()), static_cast<int>(packed.size()));
    REQUIRE(size > 0);
    payload.resize(payload.size() + 4);
    store_le32(payload.data() + payload.size() - 4, static_cast<std::uint32_t>(size));
    put(payload, std::string_view(packed).substr(0, static_cast<std::size_t>(size)));
  }
  payload.resize(payload.size() + 4);
  store_le32(payload.data() + payload.size() - 4, static_cast<std::uint32_t>(unpacked.size()));
  return payload;
}
inline Buffer bz_image(Bytes payload) {
  constexpr std::size_t kBegin = 3 * 512;  // after two sectors of set-up
  Buffer image(kBegin + 100);              // code of its own comes before the payload
  image[0x1f1] = std::byte{2};
  std::memcpy(image.data() + 0x202, "HdrS", 4);
  store_le16(image.data() + 0x206, 0x020f);
  store_le32(image.data() + 0x248, 100);
  store_le32(image.data() + 0x24c, static_cast<std::uint32_t>(payload.size()));
  image.insert(image.end(), payload.begin(), payload.end());
  image.resize(image.size() + 10);
  return image;
}

// ---------- a kernel's files ----------

struct FakeKernel {
  explicit FakeKernel(const std::string& folder, const std::string& release = "6.1.0-1-cloud-amd64")
      : files{.image_path = folder + "/vmlinuz-" + release,
              .modules_path = folder + "/modules/" + release,
              .release = release} {
    write_file(files.image_path, bz_image(lz4_payload(vmlinux_file())));
  }
  void module(const std::string& path, const std::string& needs = {}) const {
    write_file(files.modules_path + "/kernel/" + path, module_needing(needs));
  }
  void builtin(std::string_view list) const { write_file(files.modules_path + "/modules.builtin", as_bytes(list)); }
  // As Debian's cloud kernel has them, in places and names.
  void usual_modules() const {
    module("drivers/virtio/virtio.ko", "virtio_ring");
    module("drivers/virtio/virtio_ring.ko");
    module("drivers/virtio/virtio_pci_modern_dev.ko");
    module("drivers/virtio/virtio_pci.ko", "virtio_ring,virtio_pci_modern_dev,virtio");
    module("drivers/virtio/virtio_balloon.ko", "virtio,virtio_ring");
    module("drivers/char/virtio_console.ko", "virtio,virtio_ring");
    module("drivers/char/hw_random/virtio-rng.ko", "virtio");
    module("drivers/block/virtio_blk.ko", "virtio,virtio_ring");
    module("fs/erofs/erofs.ko", "libcrc32c");
    module("lib/libcrc32c.ko");
    module("fs/overlayfs/overlay.ko");
    module("drivers/net/tun.ko");
  }

  GuestKernel files;
};

// ---------- cpio ----------

struct CpioEntry {
  std::string name;
  std::uint32_t mode = 0;
  std::uint32_t device = 0;  // major * 256 + minor
  std::uint32_t inode = 0;
  std::string bytes;
};
// Reads as the kernel does, and checks each entry's form on the way.
inline std::vector<CpioEntry> read_cpio(Bytes archive) {
  const std::string_view text(reinterpret_cast<const char*>(archive.data()), archive.size());
  std::vector<CpioEntry> entries;
  std::size_t at = 0;
  while (true) {
    REQUIRE(at % 4 == 0);
    REQUIRE(at + 110 <= text.size());
    REQUIRE(text.substr(at, 6) == "070701");
    const auto field = [&](std::size_t number) {
      return static_cast<std::uint32_t>(std::stoul(std::string(text.substr(at + 6 + number * 8, 8)), nullptr, 16));
    };
    const std::size_t name_size = field(11);
    const std::size_t bytes_at = (at + 110 + name_size + 3) / 4 * 4;
    const std::size_t size = field(6);
    REQUIRE(bytes_at + size <= text.size());
    CHECK(text[at + 110 + name_size - 1] == '\0');
    CpioEntry entry{.name = std::string(text.substr(at + 110, name_size - 1)),
                    .mode = field(1),
                    .device = field(9) * 256 + field(10),
                    .inode = field(0),
                    .bytes = std::string(text.substr(bytes_at, size))};
    at = (bytes_at + size + 3) / 4 * 4;
    if (entry.name == "TRAILER!!!") {
      CHECK(at == text.size());
      return entries;
    }
    entries.push_back(std::move(entry));
  }
}

}  // namespace sluicebox::box::test

// live_overlay.h: the overlay under a running virtual machine, as the image engine sees one: QEMU alone touches it.
// Knows: QMP, NBD, the block interface. Does not know: what a rebase compares, boxes.
// Threads: one worker's.
//
// Nothing can be asked of it and nothing written to it from here: the guest writes it meanwhile. So it claims to have
// nothing, and a write of bytes that the old chain shows becomes a read through QEMU's copy-on-read filter: what the
// overlay lacks there it copies from the old chain, what the guest wrote there stays. Its own bytes are never changed.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "box/disks.h"
#include "box/machine_calls.h"
#include "box/nbd_client.h"
#include "image/block.h"

namespace sluicebox::box {

class LiveOverlay final : public image::Block {
 public:
  struct Place {
    std::string node;                // of the overlay, in QEMU
    unsigned generation;             // of its chain: each has nodes of its own
    std::vector<std::string> below;  // the nodes to delete when the chain is replaced; others go by themselves
    int directory;                   // the box's own: the export's socket lies there for a moment
  };
  LiveOverlay(QmpCall call, Place place, std::uint64_t size, std::uint64_t cluster,
              std::optional<image::BackingReference> backing)
      : call_(std::move(call)),
        place_(std::move(place)),
        size_(size),
        cluster_(cluster),
        backing_(std::move(backing)) {}
  ~LiveOverlay() override;

  // The new chain, before anything is written: QEMU is to open these very files.
  Status choose(const std::vector<image::Layer>& chain);
  // How long the guest stood still.
  std::chrono::microseconds paused() const { return paused_; }
  // The node that the next move has to delete.
  std::string chain_node() const;

  image::DiskFormat format() const override { return image::DiskFormat::kQcow2; }
  std::uint64_t size() const override { return size_; }
  std::uint64_t allocation_unit() const override { return cluster_; }
  image::LayerInfo info() const override { return {}; }
  Status read(std::uint64_t offset, MutableBytes out) override;
  Result<image::BlockStatus> status(std::uint64_t offset, std::uint64_t length) override;
  Status write(std::uint64_t offset, Bytes data) override { return copy_up(offset, data.size()); }
  Status write_zeros(std::uint64_t offset, std::uint64_t length) override { return copy_up(offset, length); }
  Status flush() override;
  void abandon() override { close_export(); }
  std::optional<image::BackingReference> backing() const override { return backing_; }
  Status can_set_backing(const std::optional<image::BackingReference>& backing) const override;
  Status set_backing(const std::optional<image::BackingReference>& backing) override;

 private:
  Status copy_up(std::uint64_t offset, std::uint64_t length);
  Status open_export();
  void close_export();
  Result<nlohmann::json> add_chain();
  Status reopen(const nlohmann::json& backing);
  Status switch_chain(const std::string& recorded);

  const QmpCall call_;
  const Place place_;
  const std::uint64_t size_;
  const std::uint64_t cluster_;
  std::optional<image::BackingReference> backing_;
  std::vector<OpenLayer> chain_;
  std::vector<std::byte> buffer_;
  std::optional<NbdClient> reader_;
  bool exported_ = false;
  std::chrono::microseconds paused_{0};
};

}  // namespace sluicebox::box

#include "image/formats/qcow2/describe.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "image/formats/qcow2/bitmap_directory.h"
#include "image/formats/qcow2/feature_names.h"

namespace sluicebox::image::qcow2 {

namespace {

constexpr std::size_t kShownBitmaps = 1000;

// As qemu-img's JSON has it.
SpecificObject to_specific(const PersistentBitmap& bitmap) {
  std::vector<std::string> flags;
  if (bitmap.in_use) flags.emplace_back("in-use");
  if (bitmap.automatic) flags.emplace_back("auto");
  return {{"flags", std::move(flags)}, {"name", bitmap.name}, {"granularity", bitmap.granularity}};
}

}  // namespace

LayerInfo describe(const ImageState& image) {
  const Header& header = image.header;
  LayerInfo info;
  info.cluster_bytes = header.geometry.cluster();
  info.dirty = header.has(Incompatible::kDirty);
  info.corrupt = header.has(Incompatible::kCorrupt);
  info.encrypted = header.crypt_method != 0;
  info.snapshots = image.shown_snapshots;

  const auto add = [&](const char* name, decltype(SpecificValue::value) value) {
    info.specific.push_back({name, std::move(value)});
  };
  add("compat", std::string(header.version == 2 ? "0.10" : "1.1"));
  add("compression-type", std::string(header.compression_type == 0   ? "zlib"
                                      : header.compression_type == 1 ? "zstd"
                                                                     : "unknown"));
  if (header.version >= 3) add("lazy-refcounts", (header.compatible & kLazyRefcounts) != 0);
  if (const auto bitmaps = read_bitmaps(image); !bitmaps.ok()) {
    add("bitmaps-unreadable", bitmaps.error().message);
  } else if (!bitmaps.value().empty()) {
    const std::size_t shown = std::min(bitmaps.value().size(), kShownBitmaps);
    std::vector<SpecificObject> objects;
    std::transform(bitmaps.value().begin(), bitmaps.value().begin() + static_cast<std::ptrdiff_t>(shown),
                   std::back_inserter(objects), to_specific);
    add("bitmaps", std::move(objects));
    if (shown < bitmaps.value().size()) add("bitmaps-omitted", std::uint64_t{bitmaps.value().size() - shown});
  }
  add("refcount-bits", std::uint64_t{1} << header.geometry.refcount_order);
  if (header.version >= 3) {
    add("corrupt", info.corrupt);
    add("extended-l2", header.has(Incompatible::kExtendedL2));
  }
  if (const HeaderExtension* name = header.find(extension::kDataFile)) {
    std::string text(name->data.size(), '\0');
    if (!text.empty()) std::memcpy(text.data(), name->data.data(), text.size());
    add("data-file", std::move(text));
  }
  if (header.has(Incompatible::kDataFile)) add("data-file-raw", (header.autoclear & kAutoclearRawDataFile) != 0);
  if (const std::size_t omitted = image.snapshots.size() - image.shown_snapshots.size(); omitted != 0) {
    add("snapshots-omitted", std::uint64_t{omitted});
  }
  if (const std::string feature = unreadable_feature(header); !feature.empty()) add("unsupported-feature", feature);
  return info;
}

}  // namespace sluicebox::image::qcow2

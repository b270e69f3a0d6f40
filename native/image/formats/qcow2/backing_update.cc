#include "image/formats/qcow2/backing_update.h"

#include <algorithm>

namespace sluicebox::image::qcow2 {

namespace {

struct Update {
  Header header;
  std::vector<std::byte> head;  // what replaces the file's first bytes; ends within the first sector
  std::uint64_t used_end = 0;   // how far the old or the new header reaches
};

Error invalid_backing(std::string text) { return Error(ErrorCode::kInvalidArgument, "backing: " + std::move(text)); }

Status check_text(const std::optional<BackingReference>& backing) {
  if (!backing) return {};
  if (backing->path.empty()) return invalid_backing("the path is empty");
  if (backing->path.size() > kMaxBackingPath) {
    return invalid_backing("the path has " + std::to_string(backing->path.size()) +
                           " bytes, the format stores at most 1023");
  }
  if (backing->path.find('\0') != std::string::npos) return invalid_backing("the path has a NUL byte");
  if (!backing->format) return {};
  if (backing->format->size() > kMaxBackingFormat) return invalid_backing("the format's name is too long");
  if (backing->format->find('\0') != std::string::npos) return invalid_backing("the format has a NUL byte");
  return {};
}

// Drops feature names from the end until all but the path fits in `room`.
bool fit_extensions(Header& header, std::size_t room) {
  while (serialize_header(header).size() > room) {
    const auto names = std::find_if(header.extensions.begin(), header.extensions.end(),
                                    [](const auto& each) { return each.type == extension::kFeatureNames; });
    if (names == header.extensions.end()) return false;
    if (names->data.size() < 2 * kFeatureNameBytes) {
      header.extensions.erase(names);
    } else {
      names->data.resize(names->data.size() / kFeatureNameBytes * kFeatureNameBytes - kFeatureNameBytes);
    }
  }
  return true;
}

// The lowest place for `bytes` bytes in [from, end) that stays clear of [busy, busy_end).
std::optional<std::uint64_t> find_place(std::uint64_t from, std::uint64_t end, std::uint64_t bytes, std::uint64_t busy,
                                        std::uint64_t busy_end) {
  if (from + bytes <= end && (from + bytes <= busy || from >= busy_end)) return from;
  const std::uint64_t behind = std::max(from, (busy_end + 7) / 8 * 8);
  if (behind + bytes <= end) return behind;
  return std::nullopt;
}

Result<Update> lay_out(const ImageState& image, const std::optional<BackingReference>& backing) {
  TRY(check_text(backing));
  const Header& old = image.header;
  const std::uint64_t cluster = image.geometry().cluster();
  const std::uint64_t old_path_bytes = old.backing ? old.backing->path.size() : 0;
  Update update{old, {}, std::max(old.extensions_end, old.backing_offset + old_path_bytes)};
  update.header.backing = backing;
  update.header.backing_offset = 0;
  // First as it is; then with fewer names, so that a path finds room in the same sector of a small cluster.
  const std::size_t path_bytes = backing ? backing->path.size() : 0;
  if (cluster == kSectorBytes) {
    if (!fit_extensions(update.header, kSectorBytes - std::min<std::size_t>(kSectorBytes, path_bytes))) {
      return invalid_backing("the path does not fit in the first cluster");
    }
  } else if (!fit_extensions(update.header, kSectorBytes)) {
    return Error(ErrorCode::kUnsupported, "the header's extensions leave no room to change the backing in one step");
  }
  update.head = serialize_header(update.header);
  if (!backing) return update;

  const std::uint64_t head_end = update.head.size();
  if (head_end + path_bytes <= kSectorBytes) {
    update.header.backing_offset = head_end;
  } else {
    // Clear of the old extensions too: until the switch they are read.
    const std::uint64_t from = std::max({head_end, std::uint64_t{kSectorBytes}, (old.extensions_end + 7) / 8 * 8});
    const auto place = find_place(from, cluster, path_bytes, old.backing_offset, old.backing_offset + old_path_bytes);
    if (place) {
      update.header.backing_offset = *place;
    } else if (path_bytes < kSectorBytes && fit_extensions(update.header, kSectorBytes - path_bytes)) {
      update.header.backing_offset = serialize_header(update.header).size();
    } else {
      return invalid_backing("the path finds no place in the first cluster beside the old one");
    }
  }
  update.used_end = std::max(update.used_end, update.header.backing_offset + path_bytes);
  update.head = serialize_header(update.header);
  return update;
}

}  // namespace

Status can_update_backing(const ImageState& image, const std::optional<BackingReference>& backing) {
  TRY(lay_out(image, backing));
  return {};
}

Status update_backing(ImageState& image, const std::optional<BackingReference>& backing) {
  Update update = TRY(lay_out(image, backing));
  const std::uint64_t path_at = update.header.backing_offset;
  const Bytes path = backing ? as_bytes(backing->path) : Bytes();

  std::vector<std::byte> sector(kSectorBytes);
  std::memcpy(sector.data(), update.head.data(), update.head.size());
  if (path_at != 0 && path_at < kSectorBytes) {
    std::memcpy(sector.data() + path_at, path.data(), path.size());
  } else if (path_at != 0) {
    TRY(image.write(path_at, path));
    TRY(image.file.sync());
  }
  TRY(image.write(0, sector));
  TRY(image.file.sync());
  update.header.extensions_end = update.head.size();
  image.header = std::move(update.header);

  // The change stands, durable. What follows only tidies up, and is left to the next sync or to the system.
  if (update.used_end > kSectorBytes) {
    std::vector<std::byte> rest(update.used_end - kSectorBytes);
    if (path_at >= kSectorBytes) std::memcpy(rest.data() + (path_at - kSectorBytes), path.data(), path.size());
    TRY(image.write(kSectorBytes, rest));
  }
  return {};
}

}  // namespace sluicebox::image::qcow2

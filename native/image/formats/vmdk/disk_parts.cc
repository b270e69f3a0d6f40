#include "image/formats/vmdk/disk_parts.h"

#include <algorithm>

#include "image/formats/vmdk/descriptor_file.h"
#include "image/printable.h"

namespace sluicebox::image::vmdk {

namespace {

Error corrupt_disk(const File& file, std::string text) {
  return Error(ErrorCode::kImageCorrupt, std::move(text)).on(file.path());
}

// The errors of the pure parsers know no file.
template <typename T>
Result<T> in_file(Result<T> parsed, const File& file) {
  if (parsed.ok()) return parsed;
  return std::move(std::move(parsed).error()).on(file.path());
}

struct ReadHeader {
  SparseHeader header;  // the footer's, where that is what counts
  SparseHeader front;   // as it stands at the start of the file
};

// "The footer is the last but one sector, and takes the place of the header": with markers before and behind it.
Result<SparseHeader> read_footer(const File& file, const SparseHeader& front) {
  std::array<std::byte, 3 * kSectorBytes> end;
  const std::uint64_t size = TRY(file.size());
  if (size < end.size() + kSectorBytes || size % kSectorBytes != 0) {
    return corrupt_disk(file, "the header leaves the grain directory to a footer, and the file ends without one");
  }
  TRY(read_exact(file, size - end.size(), end, "the footer"));
  const auto is_marker = [&](std::size_t at, MarkerType type) {
    return load_le32(end.data() + at + 8) == 0 && load_le32(end.data() + at + 12) == static_cast<std::uint32_t>(type);
  };
  if (!is_marker(0, MarkerType::kFooter) || !is_marker(2 * kSectorBytes, MarkerType::kEndOfStream)) {
    return corrupt_disk(file, "the header leaves the grain directory to a footer, and the file ends without one");
  }
  SparseHeader footer = TRY(in_file(parse_header(Bytes(end).subspan(kSectorBytes, kSectorBytes)), file));
  if (footer.directory == kDirectoryAtEnd) return corrupt_disk(file, "the footer has no grain directory either");
  if (footer.geometry != front.geometry || footer.version != front.version || footer.flags != front.flags ||
      footer.compression != front.compression) {
    return corrupt_disk(file, "the header and the footer disagree");
  }
  return footer;
}

Result<ReadHeader> read_sparse_header(const File& file) {
  std::array<std::byte, kSectorBytes> sector = {};
  const std::size_t length = TRY(file.read_at(0, sector));
  ReadHeader read;
  read.front = TRY(in_file(parse_header(Bytes(sector).first(length)), file));
  read.header = read.front.directory == kDirectoryAtEnd ? TRY(read_footer(file, read.front)) : read.front;
  return read;
}

Result<std::unique_ptr<Extent>> open_grains(File& file, const SparseHeader& header, std::uint64_t sectors,
                                            const OpenOptions& options) {
  const SparseOptions sparse{.sectors = sectors, .salvage = options.salvage, .budget = options.budget};
  return header.compressed() ? open_stream(file, header, sparse) : open_sparse(file, header, sparse);
}

// All in one file. Its descriptor names the file by whatever name it had once, which says nothing.
Result<OpenedDisk> open_monolithic(File& file, const OpenOptions& options) {
  const ReadHeader read = TRY(read_sparse_header(file));
  OpenedDisk disk;
  disk.header = read.front;
  const auto only_a_part = [&] {
    return Error(ErrorCode::kImageFormat, printable(file.path()) + " is a part of a vmdk disk, without the descriptor")
        .on(file.path())
        .advise("open the descriptor, a small text file with the disk's name");
  };
  if (read.front.descriptor_offset == 0) return only_a_part();
  const std::string text = TRY(DescriptorFile(file, read.front).read());
  if (text.starts_with('\0')) return only_a_part();
  disk.descriptor = TRY(in_file(parse_descriptor(text), file));
  const std::vector<ExtentLine>& lines = disk.descriptor.extents;
  if (lines.size() != 1 || lines.front().kind != ExtentKind::kSparse) {
    return corrupt_disk(file, "the descriptor in a sparse file names other parts than that file");
  }
  const bool stream = disk.descriptor.create_type == "streamOptimized";
  if (stream != read.header.compressed() || (!stream && disk.descriptor.create_type != "monolithicSparse")) {
    return corrupt_disk(file, "the descriptor calls the disk " + printable(disk.descriptor.create_type) +
                                  ", and the header of its file does not");
  }
  // Some writers round the capacity up to whole grains. What the header says is what QEMU shows.
  const Geometry& geometry = read.header.geometry;
  const std::uint64_t said = lines.front().sectors;
  if (said > geometry.capacity || geometry.capacity - said >= geometry.grain) {
    return corrupt_disk(file, "the descriptor gives the disk " + std::to_string(said) + " sectors, the header " +
                                  std::to_string(geometry.capacity));
  }
  Part part;
  part.end = geometry.capacity * kSectorBytes;
  part.unclean = read.header.unclean;
  part.extent = TRY(open_grains(file, read.header, geometry.capacity, options));
  disk.parts.push_back(std::move(part));
  return disk;
}

// Which parts of which files are taken by flat extents: two of them may lie in one file, not over one another.
class FlatPlaces {
 public:
  Status claim(const File& file, const ExtentLine& line) {
    for (const Place& place : places_) {
      if (place.file != &file) continue;
      const bool apart = line.offset + line.sectors <= place.begin || line.offset >= place.end;
      if (line.kind == ExtentKind::kSparse || place.sparse || !apart) {
        return corrupt_disk(file, printable(file.path()) + " is two parts of the disk at once");
      }
    }
    places_.push_back({.file = &file,
                       .begin = line.offset,
                       .end = line.offset + line.sectors,
                       .sparse = line.kind == ExtentKind::kSparse});
    return {};
  }

 private:
  struct Place {
    const File* file;
    std::uint64_t begin, end;
    bool sparse;
  };
  std::vector<Place> places_;
};

Status open_sparse_part(File& file, const ExtentLine& line, const OpenOptions& options, Part& part) {
  const ReadHeader read = TRY(read_sparse_header(file));
  const Geometry& geometry = read.header.geometry;
  if (geometry.capacity < line.sectors || geometry.capacity - line.sectors >= geometry.grain) {
    return corrupt_disk(file, printable(file.path()) + " has " + std::to_string(geometry.capacity) +
                                  " sectors, the descriptor says " + std::to_string(line.sectors));
  }
  part.unclean = read.header.unclean;
  part.extent = TRY(open_grains(file, read.header, line.sectors, options));
  return {};
}

Result<OpenedDisk> open_parts(File& file, const OpenOptions& options) {
  OpenedDisk disk;
  const std::string text = TRY(DescriptorFile(file, std::nullopt).read());
  disk.descriptor = TRY(in_file(parse_descriptor(text), file));
  FlatPlaces places;
  std::uint64_t start = 0;
  for (const ExtentLine& line : disk.descriptor.extents) {
    Part part;
    part.start = start;
    part.end = start + line.sectors * kSectorBytes;
    part.kind = line.kind;
    start = part.end;
    if (line.kind == ExtentKind::kZero) {
      part.extent = make_zero_extent();
    } else {
      if (!options.open_extent) {
        return Error(ErrorCode::kUnsupported, "the disk consists of several files, and only one was given")
            .on(file.path());
      }
      File* const opened = TRY(options.open_extent(line.name));
      if (opened == &file) return corrupt_disk(file, "the descriptor names itself as a part of the disk");
      TRY(places.claim(*opened, line));
      if (line.kind == ExtentKind::kSparse) {
        TRY(open_sparse_part(*opened, line, options, part));
      } else {
        part.extent = TRY(open_flat(*opened, line.offset, line.sectors));
      }
    }
    disk.parts.push_back(std::move(part));
  }
  return disk;
}

const char* kind_text(const Part& part, bool own_file) {
  if (own_file) return "";
  switch (part.kind) {
    case ExtentKind::kSparse:
      return "SPARSE";
    case ExtentKind::kFlat:
      return "FLAT";
    case ExtentKind::kZero:
      return "ZERO";
  }
  return "";
}

}  // namespace

Result<OpenedDisk> open_disk(File& file, const OpenOptions& options) {
  std::array<std::byte, 4> magic = {};
  const std::size_t length = TRY(file.read_at(0, magic));
  const bool sparse = length == magic.size() && load_le32(magic.data()) == kMagic;
  return sparse ? open_monolithic(file, options) : open_parts(file, options);
}

LayerInfo describe_parts(const File& file, const Descriptor& descriptor, const std::vector<Part>& parts) {
  LayerInfo info;
  std::vector<SpecificObject> extents;
  std::vector<const File*> counted = {&file};
  for (const Part& part : parts) {
    const File* const where = part.extent->file();
    info.dirty |= part.unclean;
    SpecificObject shown = {{"virtual-size", part.end - part.start},
                            {"filename", where == nullptr ? std::string() : where->path()}};
    if (part.kind == ExtentKind::kSparse) {
      if (!info.cluster_bytes) info.cluster_bytes = part.extent->unit();
      shown.push_back({"cluster-size", part.extent->unit()});
    }
    shown.push_back({"format", std::string(kind_text(part, where == &file))});
    if (part.extent->compressed()) shown.push_back({"compressed", true});
    extents.push_back(std::move(shown));
    if (where == nullptr || std::ranges::find(counted, where) != counted.end()) continue;
    counted.push_back(where);
    const Result<std::uint64_t> bytes = where->allocated_bytes();
    info.other_files_bytes += bytes.ok() ? bytes.value() : 0;
  }
  info.specific.push_back({.name = "cid", .value = std::uint64_t{descriptor.cid}});
  info.specific.push_back({.name = "parent-cid", .value = std::uint64_t{descriptor.parent_cid}});
  info.specific.push_back({.name = "create-type", .value = descriptor.create_type});
  info.specific.push_back({.name = "extents", .value = std::move(extents)});
  return info;
}

}  // namespace sluicebox::image::vmdk

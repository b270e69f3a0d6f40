#include "image/ops/convert.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/checked.h"
#include "image/joined_disks.h"
#include "image/ops/convert_ahead.h"
#include "image/ops/convert_target.h"
#include "image/ops/existing_target.h"
#include "image/ops/image_chain.h"
#include "image/ops/info.h"
#include "image/printable.h"
#include "image/salvaged_disk.h"

namespace sluicebox::image {

namespace {

constexpr unsigned kMostThreads = 16;
constexpr unsigned kThreadsByDefault = 4;
constexpr std::uint64_t kLeastSparse = 512, kMostSparse = 2u << 20;

Status require_joinable(const ConvertOptions& options) {
  if (options.snapshot) {
    return Error(ErrorCode::kInvalidArgument, "snapshot: it would be looked for in each of several sources")
        .advise("convert what the snapshot kept first, and join the copies");
  }
  const auto* target = std::get_if<CreateOptions>(&options.target);
  if (target == nullptr || !target->backing) return {};
  return Error(ErrorCode::kInvalidArgument, "backing: an image of several sources stands on nothing");
}

Status require_convertible(std::size_t sources, const ConvertOptions& options) {
  if (sources == 0) return Error(ErrorCode::kInvalidArgument, "source: there is none");
  if (sources > 1) TRY(require_joinable(options));
  const std::uint64_t sparse = options.sparse_size;
  if (sparse != 0 && (!is_power_of_two(sparse) || sparse < kLeastSparse || sparse > kMostSparse)) {
    return Error(ErrorCode::kInvalidArgument,
                 "sparseSize must be 0 or a power of two from 512 to 2 MiB, got " + std::to_string(sparse));
  }
  if (options.parallel > kMostThreads) {
    return Error(ErrorCode::kInvalidArgument, "parallel must be 1 to 16, got " + std::to_string(options.parallel));
  }
  if (!options.compress) return {};
  const auto* target = std::get_if<CreateOptions>(&options.target);
  if (target == nullptr) {
    return Error(ErrorCode::kUnsupported,
                 "compress: what an image holds already is not replaced by compressed clusters")
        .advise("convert into a new image");
  }
  const auto preallocation = std::visit([](const auto& format) { return format.preallocation; }, target->format);
  if (preallocation != Preallocation::kOff) {
    return Error(ErrorCode::kInvalidArgument, "compress: clusters that are preallocated cannot be compressed")
        .advise("leave preallocation off");
  }
  return {};
}

// What is read: an image with its chain, an image's snapshot in its place, or several images joined.
struct Source {
  std::vector<ImageChain> chains;
  std::unique_ptr<Block> snapshot;         // in the place of the first layer
  std::unique_ptr<JoinedDisks> joined;     // in the place of all
  std::unique_ptr<SalvagedDisk> salvaged;  // the same, of whatever it is that is damaged

  // Nearest first.
  std::vector<Block*> blocks() const {
    if (salvaged) return {salvaged.get()};
    if (joined) return {joined.get()};
    std::vector<Block*> all = chains.front().blocks();
    if (snapshot) all.front() = snapshot.get();
    return all;
  }
  std::uint64_t size() const { return blocks().front()->size(); }
  const std::string& path() const { return chains.front().layers.front().path; }
  bool holds(FileIdentity file) const {
    return std::ranges::any_of(chains, [&](const ImageChain& chain) {
      return std::ranges::any_of(chain.layers, [&](const Layer& layer) {
        return layer.identity == file ||
               std::ranges::find(layer.files_beside, file, &Layer::Beside::identity) != layer.files_beside.end();
      });
    });
  }
};

Result<Source> open_source(const std::vector<std::string>& paths, const ConvertOptions& options,
                           OperationContext& context) {
  Source source;
  const Access access = reading(options.shared);
  const Purpose purpose = options.salvage ? Purpose::kSalvage : Purpose::kContent;
  std::vector<Layer> images;
  std::vector<FileIdentity> named;
  for (const std::string& path : paths) {
    TRY(context.cancel.check());
    images.push_back(TRY(open_layer(path, options.source_format, access, context, purpose)));
    named.push_back(images.back().identity);
  }
  for (Layer& image : images)
    source.chains.push_back(TRY(open_image_chain(std::move(image), named, access, context, purpose)));
  if (options.snapshot) {
    source.snapshot = TRY(source.chains.front().layers.front().block->open_snapshot(*options.snapshot));
  }
  if (source.chains.size() > 1) {
    std::vector<std::vector<Block*>> disks;
    disks.reserve(source.chains.size());
    for (const ImageChain& chain : source.chains) disks.push_back(chain.blocks());
    source.joined = TRY(JoinedDisks::join(std::move(disks)));
  }
  if (options.salvage) source.salvaged = std::make_unique<SalvagedDisk>(source.blocks(), context.cancel);
  return source;
}

Status require_room(const Source& source, const CreateOptions& target) {
  if (!target.size || *target.size >= source.size()) return {};
  return Error(ErrorCode::kInvalidArgument,
               std::string("size: ") + (source.joined ? "the sources have " : "the source has ") +
                   std::to_string(source.size()) + " bytes, which " + std::to_string(*target.size) + " would cut")
      .on(source.path())
      .advise("convert at full size, and resize the copy with shrink: true");
}

// One file in one format has one backing, so from the first file that both chains hold, they hold the same ones.
std::size_t layers_above(const Source& source, const std::vector<Layer>& backing) {
  if (backing.empty() || source.salvaged) return source.blocks().size();
  const std::vector<Layer>& layers = source.chains.front().layers;
  // What a snapshot shows is not what its file does.
  const std::size_t first = source.snapshot ? 1 : 0;
  for (std::size_t i = first; i < layers.size(); ++i) {
    if (layers[i].identity == backing.front().identity &&
        layers[i].block->format() == backing.front().block->format()) {
      return i;
    }
  }
  return layers.size();
}

unsigned threads_for(unsigned parallel) {
  if (parallel != 0) return parallel;
  return std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsByDefault);
}

class Conversion {
 public:
  Conversion(const ConvertLayers& layers, const ConvertShape& shape, ConvertTarget& target, OperationContext& context)
      : ranges_(layers, shape.size, shape.grain, shape.everything, context.cancel),
        size_(shape.size),
        salvages_(layers.salvage),
        target_(target),
        context_(context) {}

  Status run(ConvertAhead& ahead) {
    report(0);
    while (true) {
      for (ConvertWindow* window = ahead.vacant(); window != nullptr; window = ahead.vacant()) {
        const Result<bool> fed = feed(*window, ahead.window());
        if (!fed.ok()) return unread(fed.error());
        if (!fed.value()) break;
        ahead.begin();
      }
      TRY(context_.cancel.check());
      const ConvertWindow* window = ahead.front();
      if (window == nullptr) break;
      if (!window->outcome.ok()) return unread(window->outcome.error());
      for (const ConvertPart& part : window->parts) TRY(write(*window, part));
      const std::uint64_t reached = window->ranges.back().offset + window->ranges.back().length;
      ahead.release();
      report(reached);
    }
    TRY(target_.finish());
    report(size_);
    return {};
  }

 private:
  void report(std::uint64_t done) { context_.progress.report({.phase = "convert", .done = done, .total = size_}); }

  Error unread(Error error) const {
    if (is_damage(error) && !salvages_ && error.hint.empty()) error.hint = "salvage: true reads around what is damaged";
    return error;
  }

  Result<bool> feed(ConvertWindow& window, std::uint64_t room) {
    while (window.length < room) {
      if (part_.length == 0) {
        const auto range = TRY(ranges_.next());
        if (!range) break;
        part_ = *range;
      }
      const std::uint64_t length = std::min(part_.length, room - window.length);
      window.ranges.push_back({.offset = part_.offset, .length = length});
      window.length += length;
      part_ = {.offset = part_.offset + length, .length = part_.length - length};
    }
    return window.length != 0;
  }

  Status write(const ConvertWindow& window, const ConvertPart& part) {
    switch (part.kind) {
      case PartKind::kZeros:
        return target_.write_zeros(part.range.offset, part.range.length);
      case PartKind::kPacked:
        return target_.write_packed(part.range.offset, Bytes(window.packed).subspan(part.place, part.packed_bytes));
      case PartKind::kBytes:
        break;
    }
    return target_.write(part.range.offset, window.bytes.bytes().subspan(part.place, part.range.length));
  }

  ConvertRanges ranges_;
  const std::uint64_t size_;
  const bool salvages_;
  ConvertTarget& target_;
  OperationContext& context_;
  DiskRange part_;  // what is left of the range taken last
};

Status fill(const Source& source, const ConvertOptions& options, ConvertTarget& target, std::uint64_t disk_bytes,
            const std::vector<Layer>& backing, OperationContext& context) {
  ConvertLayers layers{.source = source.blocks(),
                       .backing = blocks_of(backing),
                       .own_layers = layers_above(source, backing),
                       .salvage = options.salvage};
  const ConvertShape shape{.size = disk_bytes,
                           .unit = target.unit(),
                           .grain = std::max(target.unit(), options.sparse_size),
                           .everything = options.sparse_size == 0,
                           .threads = threads_for(options.parallel)};
  const std::unique_ptr<ConvertAhead> ahead = TRY(ConvertAhead::make(layers, shape, target));
  return Conversion(layers, shape, target, context).run(*ahead);
}

Result<ImageInfo> convert_over(const Source& source, const std::string& path, const ConvertInto& target,
                               const ConvertOptions& options, OperationContext& context) {
  const std::shared_ptr<OpenImage> image = TRY(OpenImage::open(path, {.format = target.format}, context));
  // Locked, unless it is read without locks.
  if (source.holds(image->identity())) {
    return Error(ErrorCode::kInvalidArgument, "target: " + printable(path) + " is a file of the source").on(path);
  }
  const std::uint64_t size = source.size();
  if (image->size() < size) {
    return Error(ErrorCode::kImageTooSmall, printable(path) + " has " + std::to_string(image->size()) +
                                                " bytes, the source " + std::to_string(size))
        .on(path);
  }
  ExistingTarget existing(*image, size, target.is_zero, context.cancel);
  TRY(fill(source, options, existing, size, {}, context));
  if (!context.cancel.try_commit()) return Error(ErrorCode::kCancelled, "the conversion was cancelled");
  TRY(image->close());
  return image_info(path, {.format = image->format()}, context);
}

Result<ImageInfo> convert_to_new(const Source& source, const std::string& path, CreateOptions create,
                                 const ConvertOptions& options, OperationContext& context) {
  TRY(require_room(source, create));
  if (!create.size) create.size = source.size();
  const NewContent content{.compress = options.compress,
                           .write = [&](ConvertTarget& new_image, std::uint64_t disk_bytes, const auto& backing) {
                             return fill(source, options, new_image, disk_bytes, backing, context);
                           }};
  return create_image(path, create, context, &content);
}

}  // namespace

Result<Converted> convert_image(const std::vector<std::string>& sources, const std::string& target,
                                const ConvertOptions& options, OperationContext& context) {
  TRY(context.cancel.check());
  TRY(require_convertible(sources.size(), options));
  const Source source = TRY(open_source(sources, options, context));
  const auto* into = std::get_if<ConvertInto>(&options.target);
  Converted converted{
      .target = into != nullptr
                    ? TRY(convert_over(source, target, *into, options, context))
                    : TRY(convert_to_new(source, target, std::get<CreateOptions>(options.target), options, context))};
  if (source.salvaged) converted.unreadable = source.salvaged->unreadable();
  return converted;
}

}  // namespace sluicebox::image

#include "addon/image_work.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "addon/open_image_work.h"
#include "addon/values.h"
#include "image/ops/change_snapshots.h"
#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/compare.h"
#include "image/ops/convert.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/map.h"
#include "image/ops/measure.h"
#include "image/ops/rebase.h"
#include "image/ops/resize.h"

namespace sluicebox::addon {

namespace {

Napi::Value optional_text(Napi::Env env, const std::optional<std::string>& text) {
  return text ? Napi::String::New(env, *text).As<Napi::Value>() : env.Null();
}

// Images record names of QEMU's.
std::string our_name(const std::string& recorded) {
  const auto format = image::format_from_name(recorded);
  return format ? image::format_name(*format) : recorded;
}

// ---------- results ----------
template <typename Value>
Napi::Value specific_value(Napi::Env env, const std::vector<Value>& values);
Napi::Value specific_value(Napi::Env env, bool value) { return Napi::Boolean::New(env, value); }
Napi::Value specific_value(Napi::Env env, std::uint64_t value) { return number(env, value); }
Napi::Value specific_value(Napi::Env env, const std::string& value) { return Napi::String::New(env, value); }
Napi::Value specific_value(Napi::Env env, const image::SpecificObject& value) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, each] : value) {
    object.Set(name, std::visit([&](const auto& scalar) { return specific_value(env, scalar); }, each));
  }
  return object;
}
template <typename Value>
Napi::Value specific_value(Napi::Env env, const std::vector<Value>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (std::uint32_t i = 0; i < values.size(); ++i) array.Set(i, specific_value(env, values[i]));
  return array;
}

Napi::Object backing_to_js(Napi::Env env, const image::BackingInfo& backing) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", backing.path);
  object.Set("resolvedPath", backing.resolved_path);
  if (backing.format) object.Set("format", our_name(*backing.format));
  object.Set("exists", backing.exists);
  return object;
}

Napi::Array snapshots_to_js(Napi::Env env, const std::vector<image::InternalSnapshot>& snapshots) {
  Napi::Array array = Napi::Array::New(env, snapshots.size());
  for (std::uint32_t i = 0; i < snapshots.size(); ++i) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("id", snapshots[i].id);
    object.Set("name", snapshots[i].name);
    object.Set("seconds", Napi::Number::New(env, static_cast<double>(snapshots[i].seconds)));
    object.Set("nanoseconds", number(env, snapshots[i].nanoseconds));
    object.Set("vmStateBytes", number(env, snapshots[i].vm_state_bytes));
    object.Set("vmClockNs", number(env, snapshots[i].vm_clock_ns));
    if (snapshots[i].icount) object.Set("icount", number(env, *snapshots[i].icount));
    array.Set(i, object);
  }
  return array;
}

Napi::Value to_js(Napi::Env env, const image::ImageInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", info.path);
  object.Set("format", image::format_name(info.format));
  object.Set("virtualBytes", number(env, info.virtual_bytes));
  object.Set("allocatedBytes", number(env, info.allocated_bytes));
  if (info.layer.cluster_bytes) object.Set("clusterBytes", number(env, *info.layer.cluster_bytes));
  if (info.backing) object.Set("backing", backing_to_js(env, *info.backing));
  if (!info.chain.empty()) {
    Napi::Array chain = Napi::Array::New(env, info.chain.size());
    for (std::uint32_t i = 0; i < info.chain.size(); ++i) chain.Set(i, to_js(env, info.chain[i]));
    object.Set("chain", chain);
  }
  object.Set("dirty", info.layer.dirty);
  object.Set("corrupt", info.layer.corrupt);
  object.Set("encrypted", info.layer.encrypted);
  object.Set("snapshots", snapshots_to_js(env, info.layer.snapshots));
  Napi::Object specific = Napi::Object::New(env);
  for (const auto& [name, value] : info.layer.specific) {
    specific.Set(name, std::visit([&](const auto& each) { return specific_value(env, each); }, value));
  }
  object.Set("specific", specific);
  return object;
}

Napi::Value to_js(Napi::Env env, const image::Converted& converted) {
  const Napi::Value target = to_js(env, converted.target);
  if (!converted.unreadable) return target;
  const auto& [bytes, parts] = *converted.unreadable;
  Napi::Array ranges = Napi::Array::New(env, parts.size());
  for (std::uint32_t i = 0; i < parts.size(); ++i) {
    Napi::Object range = Napi::Object::New(env);
    range.Set("start", number(env, parts[i].start));
    range.Set("length", number(env, parts[i].length));
    ranges.Set(i, range);
  }
  Napi::Object unreadable = Napi::Object::New(env);
  unreadable.Set("bytes", number(env, bytes));
  unreadable.Set("parts", ranges);
  target.As<Napi::Object>().Set("unreadable", unreadable);
  return target;
}

Napi::Value to_js(Napi::Env env, const image::CheckReport& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("corruptions", number(env, report.corruptions));
  object.Set("leaks", number(env, report.leaks));
  object.Set("corruptionsFixed", number(env, report.corruptions_fixed));
  object.Set("leaksFixed", number(env, report.leaks_fixed));
  object.Set("totalClusters", number(env, report.total_clusters));
  object.Set("allocatedClusters", number(env, report.allocated_clusters));
  object.Set("fragmentedClusters", number(env, report.fragmented_clusters));
  object.Set("compressedClusters", number(env, report.compressed_clusters));
  object.Set("imageEndOffset", number(env, report.image_end_offset));
  Napi::Array problems = Napi::Array::New(env, report.problems.size());
  for (std::uint32_t i = 0; i < report.problems.size(); ++i) {
    Napi::Object problem = Napi::Object::New(env);
    problem.Set("kind", report.problems[i].kind);
    if (report.problems[i].offset) problem.Set("offset", number(env, *report.problems[i].offset));
    problem.Set("message", report.problems[i].message);
    problems.Set(i, problem);
  }
  object.Set("problems", problems);
  return object;
}

Napi::Value to_js(Napi::Env env, const image::CommitResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("bytesCommitted", number(env, result.bytes_committed));
  return object;
}

Napi::Value to_js(Napi::Env env, const image::RebaseResult& result) { return rebase_to_js(env, result); }

Napi::Value to_js(Napi::Env env, const image::CompareResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("identical", result.identical);
  if (result.first_difference) object.Set("firstDifference", number(env, *result.first_difference));
  object.Set("sizeDiffers", result.size_differs);
  if (result.allocation_differs) object.Set("allocationDiffers", Napi::Boolean::New(env, true));
  return object;
}

Napi::Value to_js(Napi::Env env, const image::MeasuredSizes& sizes) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("requiredBytes", number(env, sizes.required));
  object.Set("fullyAllocatedBytes", number(env, sizes.fully_allocated));
  if (sizes.bitmaps) object.Set("bitmapsBytes", number(env, *sizes.bitmaps));
  return object;
}

// Rows of five numbers: a part may have tens of thousands of extents, and an object of each costs more than finding it.
Napi::Value to_js(Napi::Env env, const image::MapPart& part) {
  constexpr std::size_t kColumns = 5;
  constexpr double kNoOffset = -1;
  Napi::Float64Array rows = Napi::Float64Array::New(env, part.extents.size() * kColumns);
  std::size_t at = 0;
  for (const image::MapExtent& extent : part.extents) {
    rows[at++] = static_cast<double>(extent.start);
    rows[at++] = static_cast<double>(extent.length);
    rows[at++] = static_cast<double>(extent.depth);
    rows[at++] = (extent.present ? 1 : 0) + (extent.zero ? 2 : 0) + (extent.data ? 4 : 0);
    rows[at++] = extent.offset ? static_cast<double>(*extent.offset) : kNoOffset;
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("rows", rows);
  if (part.next) object.Set("next", number(env, *part.next));
  return object;
}

template <typename T>
class ResultPayload final : public JsPayload {
 public:
  explicit ResultPayload(Result<T> result) : result_(std::move(result)) {}

  Napi::Value to_outcome(Napi::Env env) override {
    Napi::Object outcome = Napi::Object::New(env);
    if (result_.ok())
      outcome.Set("value", to_js(env, result_.value()));
    else
      outcome.Set("error", from_error(env, result_.error()));
    return outcome;
  }

 private:
  Result<T> result_;
};

template <typename T>
std::unique_ptr<JsPayload> payload_of(Result<T> result) {
  return std::make_unique<ResultPayload<T>>(std::move(result));
}

struct Nothing {};
Napi::Value to_js(Napi::Env env, const Nothing&) { return env.Undefined(); }

// ---------- requests ----------
image::DiskFormat format_of(const Napi::Object& request, const char* key) {
  const auto format = image::format_from_name(text_of(request, key));
  if (!format) refuse(request.Env(), std::string(key) + ": expected 'raw', 'qcow2', 'vmdk', 'vhd' or 'vhdx'");
  return *format;
}

std::optional<image::DiskFormat> optional_format_of(const Napi::Object& request, const char* key) {
  if (request.Get(key).IsUndefined()) return std::nullopt;
  return format_of(request, key);
}

image::Preallocation preallocation_of(const Napi::Object& request) {
  const std::string name = text_of(request, "preallocation");
  if (name == "off") return image::Preallocation::kOff;
  if (name == "metadata") return image::Preallocation::kMetadata;
  if (name == "falloc") return image::Preallocation::kFalloc;
  if (name == "full") return image::Preallocation::kFull;
  refuse(request.Env(), "preallocation: expected 'off', 'metadata', 'falloc' or 'full'");
}

image::VmdkCreate vmdk_create_of(const Napi::Object& request) {
  image::VmdkCreate format;
  const std::string subformat = text_of(request, "subformat");
  const auto named = std::ranges::find(image::vmdk::kSubformats, subformat, image::vmdk::subformat_name);
  if (named == image::vmdk::kSubformats.end()) refuse(request.Env(), "subformat: expected one that vmdk has");
  format.subformat = *named;
  format.grain_size = whole_of(request, "grainSize");
  const std::string adapter = text_of(request, "adapter");
  const auto known = std::ranges::find(image::vmdk::kAdapters, adapter, image::vmdk::adapter_name);
  if (known == image::vmdk::kAdapters.end()) {
    refuse(request.Env(), "adapter: expected 'ide', 'lsilogic' or 'buslogic'");
  }
  format.adapter = *known;
  return format;
}

image::CreateOptions create_options_of(const Napi::Object& request) {
  image::CreateOptions options;
  options.size = optional_whole_of(request, "size");
  options.overwrite = flag_of(request, "overwrite");
  if (const Napi::Value backing = request.Get("backing"); backing.IsObject()) {
    const auto object = backing.As<Napi::Object>();
    options.backing = image::BackingOption{text_of(object, "path"), format_of(object, "format")};
    options.unchecked_backing = flag_of(object, "unchecked");
  }
  const image::DiskFormat format = format_of(request, "format");
  if (format == image::DiskFormat::kRaw) {
    options.format = image::RawCreate{preallocation_of(request)};
  } else if (format == image::DiskFormat::kVmdk) {
    options.format = vmdk_create_of(request);
  } else if (format == image::DiskFormat::kVhd) {
    options.format = image::VhdCreate{.fixed = flag_of(request, "fixed"), .block_size = whole_of(request, "blockSize")};
  } else if (format == image::DiskFormat::kVhdx) {
    options.format = image::VhdxCreate{.fixed = flag_of(request, "fixed"),
                                       .block_size = whole_of(request, "blockSize"),
                                       .log_size = whole_of(request, "logSize")};
  } else {
    options.format = image::Qcow2Create{
        .cluster_size = whole_of(request, "clusterSize"),
        .version = static_cast<unsigned>(whole_of(request, "version")),
        .refcount_bits = static_cast<unsigned>(whole_of(request, "refcountBits")),
        .lazy_refcounts = flag_of(request, "lazyRefcounts"),
        .extended_l2 = flag_of(request, "extendedL2"),
        .zstd = flag_of(request, "zstd"),
        .preallocation = preallocation_of(request),
    };
  }
  return options;
}

ImageWork parse_create(const Napi::Object& request) {
  return [path = text_of(request, "path"), options = create_options_of(request)](image::OperationContext& context) {
    return payload_of(image::create_image(path, options, context));
  };
}

std::variant<image::CreateOptions, image::ConvertInto> convert_target_of(const Napi::Object& request) {
  if (!flag_of(request, "existing")) return create_options_of(request);
  return image::ConvertInto{.format = optional_format_of(request, "format"), .is_zero = flag_of(request, "isZero")};
}

ImageWork parse_convert(const Napi::Object& request) {
  const image::ConvertOptions options{
      .target = convert_target_of(request),
      .source_format = optional_format_of(request, "sourceFormat"),
      .shared = flag_of(request, "shared"),
      .snapshot = optional_text_of(request, "snapshot"),
      .salvage = flag_of(request, "salvage"),
      .compress = flag_of(request, "compress"),
      .parallel = static_cast<unsigned>(optional_whole_of(request, "parallel").value_or(0)),
      .sparse_size = whole_of(request, "sparseSize"),
  };
  return [sources = texts_of(request, "sources"), target = text_of(request, "target"),
          options](image::OperationContext& context) {
    return payload_of(image::convert_image(sources, target, options, context));
  };
}

ImageWork parse_info(const Napi::Object& request) {
  const image::InfoOptions options{.chain = flag_of(request, "chain"),
                                   .format = optional_format_of(request, "format"),
                                   .shared = flag_of(request, "shared")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::image_info(path, options, context));
  };
}

image::Repair repair_of(const Napi::Object& request) {
  const std::string name = text_of(request, "repair");
  if (name == "none") return image::Repair::kNone;
  if (name == "leaks") return image::Repair::kLeaks;
  if (name == "all") return image::Repair::kAll;
  refuse(request.Env(), "repair: expected 'none', 'leaks' or 'all'");
}

ImageWork parse_check(const Napi::Object& request) {
  const image::CheckOptions options{.repair = repair_of(request),
                                    .format = optional_format_of(request, "format"),
                                    .shared = flag_of(request, "shared")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::check_image(path, options, context));
  };
}

ImageWork parse_rebase(const Napi::Object& request) {
  return [path = text_of(request, "path"), options = rebase_options_of(request)](image::OperationContext& context) {
    return payload_of(image::rebase_image(path, options, context));
  };
}

image::Committed committed_of(const Napi::Object& request) {
  if (!flag_of(request, "keepOverlay")) return image::Committed::kRemoved;
  return flag_of(request, "emptyOverlay") ? image::Committed::kEmptied : image::Committed::kLeft;
}

ImageWork parse_commit(const Napi::Object& request) {
  const image::CommitOptions options{.into = optional_text_of(request, "into"),
                                     .format = optional_format_of(request, "format"),
                                     .overlay = committed_of(request)};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::commit_image(path, options, context));
  };
}

ImageWork parse_resize(const Napi::Object& request) {
  const image::ResizeOptions options{.size = whole_of(request, "size"),
                                     .shrink = flag_of(request, "shrink"),
                                     .preallocation = preallocation_of(request),
                                     .format = optional_format_of(request, "format")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::resize_image(path, options, context));
  };
}

ImageWork parse_compare(const Napi::Object& request) {
  const image::CompareOptions options{.strict = flag_of(request, "strict"),
                                      .first_format = optional_format_of(request, "format"),
                                      .second_format = optional_format_of(request, "otherFormat"),
                                      .shared = flag_of(request, "shared")};
  return
      [path = text_of(request, "path"), other = text_of(request, "other"), options](image::OperationContext& context) {
        return payload_of(image::compare_images(path, other, options, context));
      };
}

ImageWork parse_map(const Napi::Object& request) {
  const image::MapOptions options{.format = optional_format_of(request, "format"),
                                  .start = whole_of(request, "start"),
                                  .length = optional_whole_of(request, "length"),
                                  .most_extents = whole_of(request, "mostExtents"),
                                  .shared = flag_of(request, "shared")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::map_image(path, options, context));
  };
}

ImageWork parse_measure(const Napi::Object& request) {
  const image::MeasureOptions options{.target = create_options_of(request),
                                      .source = optional_text_of(request, "source"),
                                      .source_format = optional_format_of(request, "sourceFormat"),
                                      .snapshot = optional_text_of(request, "snapshot"),
                                      .shared = flag_of(request, "shared")};
  return [options](image::OperationContext& context) { return payload_of(image::measure_image(options, context)); };
}

image::SnapshotChange change_of(const Napi::Object& request) {
  const std::string name = text_of(request, "change");
  if (name == "create") return image::SnapshotChange::kCreate;
  if (name == "apply") return image::SnapshotChange::kApply;
  if (name == "remove") return image::SnapshotChange::kRemove;
  refuse(request.Env(), "change: expected 'create', 'apply' or 'remove'");
}

ImageWork parse_snapshot(const Napi::Object& request) {
  const image::SnapshotOptions options{
      .change = change_of(request), .name = text_of(request, "name"), .format = optional_format_of(request, "format")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    const Status changed = image::change_snapshots(path, options, context);
    return payload_of(changed.ok() ? Result<Nothing>(Nothing{}) : Result<Nothing>(changed.error()));
  };
}

}  // namespace

Napi::Object rebase_to_js(Napi::Env env, const image::RebaseResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("format", image::format_name(result.format));
  std::optional<std::string> backing_format = result.backing_format;
  if (backing_format) backing_format = our_name(*backing_format);
  object.Set("backingFormat", optional_text(env, backing_format));
  object.Set("from", optional_text(env, result.from));
  object.Set("to", optional_text(env, result.to));
  object.Set("clustersCompared", number(env, result.clusters_compared));
  object.Set("clustersCopied", number(env, result.clusters_copied));
  object.Set("bytesCopied", number(env, result.bytes_copied));
  return object;
}

image::RebaseOptions rebase_options_of(const Napi::Object& request) {
  return {.backing = optional_text_of(request, "backing"),
          .backing_format = optional_format_of(request, "backingFormat"),
          .format = optional_format_of(request, "format"),
          .unsafe = flag_of(request, "unsafe"),
          .dry_run = flag_of(request, "dryRun"),
          .known = {}};
}

ImageWork parse_image_work(const std::string& op, const Napi::Object& request) {
  if (is_open_image_work(op)) return parse_open_image_work(op, request);
  if (op == "create") return parse_create(request);
  if (op == "info") return parse_info(request);
  if (op == "check") return parse_check(request);
  if (op == "rebase") return parse_rebase(request);
  if (op == "commit") return parse_commit(request);
  if (op == "resize") return parse_resize(request);
  if (op == "convert") return parse_convert(request);
  if (op == "compare") return parse_compare(request);
  if (op == "map") return parse_map(request);
  if (op == "measure") return parse_measure(request);
  if (op == "snapshot") return parse_snapshot(request);
  refuse(request.Env(), "op: there is no operation '" + op + "'");
}

std::unique_ptr<JsPayload> error_payload(Error error) { return payload_of(Result<Nothing>(std::move(error))); }

}  // namespace sluicebox::addon

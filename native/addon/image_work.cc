#include "addon/image_work.h"

#include <utility>
#include <variant>

#include "addon/values.h"
#include "image/ops/check.h"
#include "image/ops/commit.h"
#include "image/ops/create.h"
#include "image/ops/info.h"
#include "image/ops/rebase.h"
#include "image/ops/resize.h"

namespace sluicebox::addon {

namespace {

Napi::Value optional_text(Napi::Env env, const std::optional<std::string>& text) {
  return text ? Napi::String::New(env, *text).As<Napi::Value>() : env.Null();
}

// ---------- results ----------
Napi::Value specific_value(Napi::Env env, const image::SpecificValue& entry) {
  if (const bool* flag = std::get_if<bool>(&entry.value)) return Napi::Boolean::New(env, *flag);
  if (const auto* count = std::get_if<std::uint64_t>(&entry.value)) return number(env, *count);
  return Napi::String::New(env, std::get<std::string>(entry.value));
}

Napi::Object backing_to_js(Napi::Env env, const image::BackingInfo& backing) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("path", backing.path);
  object.Set("resolvedPath", backing.resolved_path);
  if (backing.format) object.Set("format", *backing.format);
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
  for (const image::SpecificValue& entry : info.layer.specific) specific.Set(entry.name, specific_value(env, entry));
  object.Set("specific", specific);
  return object;
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

// A value that only ever is an error.
struct Nothing {};
Napi::Value to_js(Napi::Env env, const Nothing&) { return env.Undefined(); }

// ---------- requests ----------
image::DiskFormat format_of(const Napi::Object& request, const char* key) {
  const auto format = image::format_from_name(text_of(request, key));
  if (!format) refuse(request.Env(), std::string(key) + ": expected 'raw' or 'qcow2'");
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

ImageWork parse_create(const Napi::Object& request) {
  image::CreateOptions options;
  options.size = optional_whole_of(request, "size");
  options.overwrite = flag_of(request, "overwrite");
  if (const Napi::Value backing = request.Get("backing"); backing.IsObject()) {
    const auto object = backing.As<Napi::Object>();
    options.backing = image::BackingOption{text_of(object, "path"), format_of(object, "format")};
  }
  if (format_of(request, "format") == image::DiskFormat::kRaw) {
    options.format = image::RawCreate{preallocation_of(request)};
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
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::create_image(path, options, context));
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
  const image::CheckOptions options{.repair = repair_of(request), .format = optional_format_of(request, "format")};
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    return payload_of(image::check_image(path, options, context));
  };
}

ImageWork parse_rebase(const Napi::Object& request) {
  return [path = text_of(request, "path"), options = rebase_options_of(request)](image::OperationContext& context) {
    return payload_of(image::rebase_image(path, options, context));
  };
}

ImageWork parse_commit(const Napi::Object& request) {
  const image::CommitOptions options{.into = optional_text_of(request, "into"),
                                     .format = optional_format_of(request, "format"),
                                     .keep_overlay = flag_of(request, "keepOverlay")};
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

}  // namespace

Napi::Object rebase_to_js(Napi::Env env, const image::RebaseResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("format", image::format_name(result.format));
  object.Set("backingFormat", optional_text(env, result.backing_format));
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
  if (op == "create") return parse_create(request);
  if (op == "info") return parse_info(request);
  if (op == "check") return parse_check(request);
  if (op == "rebase") return parse_rebase(request);
  if (op == "commit") return parse_commit(request);
  if (op == "resize") return parse_resize(request);
  refuse(request.Env(), "op: there is no operation '" + op + "'");
}

std::unique_ptr<JsPayload> error_payload(Error error) { return payload_of(Result<Nothing>(std::move(error))); }

}  // namespace sluicebox::addon

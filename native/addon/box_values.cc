#include "addon/box_values.h"

#include "addon/values.h"

namespace sluicebox::addon {

namespace {

std::uint32_t small_of(const Napi::Object& object, const char* key) {
  const std::uint64_t value = whole_of(object, key);
  if (value > 0xffffffffU) refuse(object.Env(), std::string(key) + ": too large");
  return static_cast<std::uint32_t>(value);
}

// Milliseconds, or -1.
std::int64_t patience_of(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (value.IsNumber() && value.As<Napi::Number>().DoubleValue() == -1) return -1;
  return static_cast<std::int64_t>(whole_of(object, key));
}

box::LimitSpec limit_of(const Napi::Object& request, const char* value, const char* asked) {
  return {.value = whole_of(request, value), .asked = flag_of(request, asked)};
}

protocol::User user_of(const Napi::Object& request) {
  const auto object = request.Get("user");
  if (!object.IsObject()) refuse(request.Env(), "user: expected an object");
  const auto user = object.As<Napi::Object>();
  const std::string kind = text_of(user, "kind");
  protocol::User result;
  if (kind == "root") return result;
  if (kind == "name") {
    result.kind = protocol::User::Kind::kName;
    result.name = text_of(user, "name");
    return result;
  }
  if (kind != "ids") refuse(request.Env(), "user.kind: expected 'root', 'name' or 'ids'");
  result.kind = protocol::User::Kind::kIds;
  result.uid = small_of(user, "uid");
  if (optional_whole_of(user, "gid")) result.gid = small_of(user, "gid");
  return result;
}

std::vector<box::DiskSpec> disks_of(const Napi::Value& value) {
  if (!value.IsArray()) refuse(value.Env(), "disks: expected an array");
  const auto array = value.As<Napi::Array>();
  std::vector<box::DiskSpec> disks;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value each = array.Get(i);
    if (!each.IsObject()) refuse(value.Env(), "disks: expected objects");
    const auto disk = each.As<Napi::Object>();
    const std::string mode = text_of(disk, "mode");
    if (mode != "overlay" && mode != "direct" && mode != "readonly")
      refuse(value.Env(), "disks.mode: expected 'overlay', 'direct' or 'readonly'");
    disks.push_back({.path = text_of(disk, "path"),
                     .format = optional_text_of(disk, "format"),
                     .mode = mode == "overlay"  ? box::DiskMode::kOverlay
                             : mode == "direct" ? box::DiskMode::kDirect
                                                : box::DiskMode::kReadonly});
  }
  return disks;
}

Napi::Array to_js(Napi::Env env, const box::BoxRecord& record, const std::string& directory) {
  constexpr const char* kModes[] = {"overlay", "direct", "readonly"};
  Napi::Array array = Napi::Array::New(env);
  for (std::size_t i = 0; i < record.spec.disks.size(); ++i) {
    const box::DiskSpec& spec = record.spec.disks[i];
    Napi::Object disk = Napi::Object::New(env);
    disk.Set("path", spec.path);
    if (spec.format) disk.Set("format", *spec.format);
    disk.Set("mode", kModes[static_cast<std::size_t>(spec.mode)]);
    if (i < record.disks.size() && !record.disks[i].overlay.empty())
      disk.Set("overlayPath", directory + "/" + record.disks[i].overlay);
    array.Set(array.Length(), disk);
  }
  return array;
}

box::Output output_of(const Napi::Object& request, const char* key) {
  const std::string name = text_of(request, key);
  if (name == "null") return box::Output::kNull;
  if (name == "pipe") return box::Output::kPipe;
  if (name == "stdout") return box::Output::kStdout;
  refuse(request.Env(), std::string(key) + ": expected 'null', 'pipe' or 'stdout'");
}

}  // namespace

box::BoxSpec spec_of(const Napi::Object& request) {
  box::BoxSpec spec;
  spec.name = optional_text_of(request, "name");
  spec.keep = !flag_of(request, "ephemeral");
  const auto rootfs = request.Get("rootfs");
  if (!rootfs.IsObject()) refuse(request.Env(), "rootfs: expected an object");
  if (text_of(rootfs.As<Napi::Object>(), "kind") == "directory") {
    spec.directory = text_of(rootfs.As<Napi::Object>(), "path");
  }
  const std::string isolation = text_of(request, "isolation");
  if (isolation != "namespace" && isolation != "vm") refuse(request.Env(), "isolation: expected 'namespace' or 'vm'");
  spec.machine = isolation == "vm";
  if (const Napi::Value disks = request.Get("disks"); spec.machine) spec.disks = disks_of(disks);
  const bool from_snapshot = text_of(rootfs.As<Napi::Object>(), "kind") == "snapshot";
  spec.host = spec.machine && text_of(rootfs.As<Napi::Object>(), "kind") == "host";
  if (spec.machine && spec.disks.empty() && !spec.directory && !spec.host && !from_snapshot)
    refuse(request.Env(), "disks: expected one at least");
  spec.memory_bytes = limit_of(request, "memory", "memoryAsked");
  spec.vcpus = limit_of(request, "vcpus", "vcpusAsked");
  spec.processes = limit_of(request, "maxProcesses", "maxProcessesAsked");
  spec.storage_bytes = whole_of(request, "storage");
  spec.storage_asked = flag_of(request, "storageAsked");
  spec.config = text_of(request, "config");
  return spec;
}

IfExists if_exists_of(const Napi::Object& request) {
  const std::string name = text_of(request, "ifExists");
  if (name == "error") return IfExists::kError;
  if (name == "reuse") return IfExists::kReuse;
  if (name == "replace") return IfExists::kReplace;
  refuse(request.Env(), "ifExists: expected 'error', 'reuse' or 'replace'");
}

box::ExecutionOptions execution_options_of(const Napi::Object& request) {
  box::ExecutionOptions options;
  protocol::Spawn& spawn = options.spawn;
  spawn.argv = texts_of(request, "argv");
  if (spawn.argv.empty()) refuse(request.Env(), "argv: expected at least a program");
  spawn.env = texts_of(request, "env");
  spawn.cwd = text_of(request, "cwd");
  spawn.user = user_of(request);
  options.stdin_pipe = text_of(request, "stdin") == "pipe";
  options.out = output_of(request, "stdout");
  options.err = output_of(request, "stderr");
  if (const Napi::Value tty = request.Get("tty"); tty.IsObject()) {
    spawn.tty = true;
    spawn.cols = small_of(tty.As<Napi::Object>(), "cols");
    spawn.rows = small_of(tty.As<Napi::Object>(), "rows");
  }
  spawn.timeout_ms = whole_of(request, "timeoutMs");
  spawn.kill_signal = small_of(request, "killSignal");
  spawn.grace_ms = patience_of(request, "graceMs");
  options.framed = flag_of(request, "framed");
  options.high_water_mark = whole_of(request, "highWaterMark");
  if (options.high_water_mark == 0) refuse(request.Env(), "highWaterMark: expected at least 1");
  return options;
}

protocol::Kill kill_of(const Napi::Object& request) {
  return {.signal = small_of(request, "signal"),
          .scope = text_of(request, "scope") == "process" ? protocol::KillScope::kProcess : protocol::KillScope::kGroup,
          .force_after_ms = patience_of(request, "forceAfterMs")};
}

protocol::Resize resize_of(const Napi::Object& request) {
  return {.cols = small_of(request, "cols"), .rows = small_of(request, "rows")};
}

std::vector<std::byte> bytes_of(const Napi::Object& request, const char* key) {
  const Napi::Value value = request.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    refuse(request.Env(), std::string(key) + ": expected a Uint8Array");
  }
  const auto array = value.As<Napi::Uint8Array>();
  // A detached one has no length and no data.
  const auto* data = reinterpret_cast<const std::byte*>(array.Data());  // bytes as bytes
  return {data, data + array.ByteLength()};
}

Napi::Object to_js(Napi::Env env, const BoxView& view) {
  const box::BoxSpec& spec = view.record.spec;
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", view.record.id);
  if (spec.name) object.Set("name", *spec.name);
  object.Set("state", box::state_name(view.state));
  object.Set("createdAt", Napi::Number::New(env, static_cast<double>(view.record.created_at_ms)));
  if (view.started_at_ms != 0) {
    object.Set("startedAt", Napi::Number::New(env, static_cast<double>(view.started_at_ms)));
  }
  object.Set("ephemeral", Napi::Boolean::New(env, !spec.keep));
  Napi::Object rootfs = Napi::Object::New(env);
  object.Set("isolation", spec.machine ? "vm" : "namespace");
  if (spec.machine) object.Set("disks", to_js(env, view.record, view.directory));
  rootfs.Set("kind", spec.directory ? "directory" : spec.machine && !spec.host ? "disk" : "host");
  if (spec.directory) rootfs.Set("path", *spec.directory);
  object.Set("rootfs", rootfs);
  object.Set("memory", number(env, spec.memory_bytes.value));
  object.Set("vcpus", number(env, spec.vcpus.value));
  object.Set("maxProcesses", number(env, spec.processes.value));
  object.Set("storage", number(env, spec.storage_bytes));
  Napi::Array warnings = Napi::Array::New(env, view.warnings.size());
  for (std::uint32_t i = 0; i < view.warnings.size(); ++i) warnings.Set(i, view.warnings[i]);
  object.Set("warnings", warnings);
  object.Set("config", spec.config);
  return object;
}

}  // namespace sluicebox::addon

// box_values.h: boxes' requests and results between JavaScript and plain structs.
// Knows: Node-API, box/. Threads: the JavaScript thread.
#pragma once

#include <napi.h>

#include <optional>
#include <string>

#include "box/box.h"
#include "box/execution.h"
#include "box/record.h"

namespace sluicebox::addon {

enum class IfExists : std::uint8_t { kError, kReuse, kReplace };

// Throw a TypeError for what the SDK would not have sent.
box::BoxSpec spec_of(const Napi::Object& request);
IfExists if_exists_of(const Napi::Object& request);
box::ExecutionOptions execution_options_of(const Napi::Object& request);
protocol::Kill kill_of(const Napi::Object& request);
protocol::Resize resize_of(const Napi::Object& request);
std::vector<std::byte> bytes_of(const Napi::Object& request, const char* key);

// What list() and info() tell. Plain, so that it can be made on any thread.
struct BoxView {
  box::BoxRecord record;
  box::State state{};
  std::int64_t started_at_ms = 0;
  std::vector<std::string> warnings;
  std::string directory;  // of the box in its home
};
Napi::Object to_js(Napi::Env env, const BoxView& view);

}  // namespace sluicebox::addon

// values.h: JavaScript values to plain C++ ones and back, refusing what does not fit.
// Knows: Node-API, base. Does not know: what the values are for.
// Threads: the JavaScript thread only.
#pragma once

#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "event_queue/record.h"

namespace sluicebox::addon {

[[noreturn]] void refuse(Napi::Env env, const std::string& what);

// Throw a JavaScript TypeError naming the key when the value is not of the kind. The SDK checks first; this keeps a
// direct caller of the door from doing harm.
std::string text_of(const Napi::Object& object, const char* key);
std::optional<std::string> optional_text_of(const Napi::Object& object, const char* key);
bool flag_of(const Napi::Object& object, const char* key);
std::uint64_t whole_of(const Napi::Object& object, const char* key);
std::optional<std::uint64_t> optional_whole_of(const Napi::Object& object, const char* key);
std::vector<std::string> texts_of(const Napi::Object& object, const char* key);

template <typename Number>
Napi::Value number(Napi::Env env, Number value) {
  return Napi::Number::New(env, static_cast<double>(value));
}
Napi::Object object_argument(const Napi::CallbackInfo& info, std::size_t index);

// A handle's id as one safe integer: 32 bits of generation above 21 bits of slot.
Napi::Value from_handle(Napi::Env env, event_queue::HandleId id);
// Any number is answered: what was never an id names no handle.
event_queue::HandleId to_handle(const Napi::Value& value);

// {code, message, errno?, path?, offset?, hint?}
Napi::Object from_error(Napi::Env env, const Error& error);
// The same, on a JavaScript Error that can be thrown.
Napi::Error throwable(Napi::Env env, const Error& error);

}  // namespace sluicebox::addon

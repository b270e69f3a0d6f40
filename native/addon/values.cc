#include "addon/values.h"

#include <cerrno>
#include <cmath>
#include <cstring>

namespace sluicebox::addon {

namespace {

constexpr double kSlotLimit = 2097152;  // 2^21: the SDK's drain.ts has the same number

[[noreturn]] void refuse(const Napi::Object& object, const char* key, const char* expected) {
  throw Napi::TypeError::New(object.Env(), std::string(key) + ": expected " + expected);
}

std::optional<std::uint64_t> whole(const Napi::Value& value) {
  if (!value.IsNumber()) return std::nullopt;
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0) || number > 9007199254740991.0 || number != std::floor(number)) return std::nullopt;
  return static_cast<std::uint64_t>(number);
}

void fill(Napi::Object& target, const Error& error) {
  const Napi::Env env = target.Env();
  target.Set("code", Napi::Number::New(env, static_cast<int>(error.code)));
  if (error.os_error != 0) {
    const char* name = strerrorname_np(error.os_error);
    if (name != nullptr) target.Set("errno", name);
  }
  if (!error.path.empty()) target.Set("path", error.path);
  if (error.offset) target.Set("offset", Napi::Number::New(env, static_cast<double>(*error.offset)));
  if (!error.hint.empty()) target.Set("hint", error.hint);
  if (!error.phase.empty()) target.Set("phase", error.phase);
  if (!error.output.empty()) target.Set("consoleTail", error.output);
}

}  // namespace

std::string text_of(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) refuse(object, key, "a string");
  return value.As<Napi::String>().Utf8Value();
}

std::optional<std::string> optional_text_of(const Napi::Object& object, const char* key) {
  if (object.Get(key).IsUndefined()) return std::nullopt;
  return text_of(object, key);
}

bool flag_of(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsBoolean()) refuse(object, key, "true or false");
  return value.As<Napi::Boolean>().Value();
}

std::uint64_t whole_of(const Napi::Object& object, const char* key) {
  const auto number = whole(object.Get(key));
  if (!number) refuse(object, key, "a whole number");
  return *number;
}

std::optional<std::uint64_t> optional_whole_of(const Napi::Object& object, const char* key) {
  if (object.Get(key).IsUndefined()) return std::nullopt;
  return whole_of(object, key);
}

std::vector<std::string> texts_of(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) refuse(object, key, "an array of strings");
  const auto array = value.As<Napi::Array>();
  std::vector<std::string> texts;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value entry = array.Get(i);
    if (!entry.IsString()) refuse(object, key, "an array of strings");
    texts.push_back(entry.As<Napi::String>().Utf8Value());
  }
  return texts;
}

[[noreturn]] void refuse(Napi::Env env, const std::string& what) { throw Napi::TypeError::New(env, what); }

Napi::Object object_argument(const Napi::CallbackInfo& info, std::size_t index) {
  if (!info[index].IsObject()) throw Napi::TypeError::New(info.Env(), "expected an object");
  return info[index].As<Napi::Object>();
}

Napi::Value from_handle(Napi::Env env, event_queue::HandleId id) {
  return Napi::Number::New(env, id.generation * kSlotLimit + id.slot);
}

event_queue::HandleId to_handle(const Napi::Value& value) {
  const auto number = whole(value);
  if (!number) return {};
  const auto slots = static_cast<std::uint64_t>(kSlotLimit);
  const std::uint64_t generation = *number / slots;
  if (generation > UINT32_MAX) return {};
  return {static_cast<std::uint32_t>(*number % slots), static_cast<std::uint32_t>(generation)};
}

Napi::Object from_error(Napi::Env env, const Error& error) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("message", error.message);
  fill(object, error);
  return object;
}

Napi::Error throwable(Napi::Env env, const Error& error) {
  Napi::Error thrown = Napi::Error::New(env, error.message);
  Napi::Object object = thrown.Value();
  fill(object, error);
  return thrown;
}

}  // namespace sluicebox::addon

// The module: what require() of the addon gives. See Addon in lib/native.ts.
#include <napi.h>

#include "addon/core.h"
#include "base/error_code.h"
#ifdef SLUICEBOX_TEST_PRODUCER
#include "addon/testing/producer.h"
#endif

namespace sluicebox::addon {

namespace {

constexpr int kAbi = 1;  // lib/native.ts refuses another

Napi::Array error_codes(Napi::Env env) {
  Napi::Array codes = Napi::Array::New(env);
  const auto add = [&](int number, const char* name) {
    Napi::Array row = Napi::Array::New(env, 2);
    row.Set(0U, Napi::Number::New(env, number));
    row.Set(1U, Napi::String::New(env, name));
    codes.Set(codes.Length(), row);
  };
#define X(identifier, number, name) add(number, name);
  SLUICEBOX_ERROR_CODES(X)
#undef X
  return codes;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", SLUICEBOX_VERSION);  // from package.json
  exports.Set("abi", Napi::Number::New(env, kAbi));
  exports.Set("errorCodes", error_codes(env));
  exports.Set("Core", Core::define(env));
#ifdef SLUICEBOX_TEST_PRODUCER
  define_test_producer(env, exports);
#endif
  return exports;
}

}  // namespace

NODE_API_MODULE(sluicebox, init)

}  // namespace sluicebox::addon

// box_payload.h: what an operation on a box leaves for the winner of its claim, and what becomes of it without one.
// Knows: Node-API. Threads: made on any; a value on the JavaScript thread; reclaimed on any.
#pragma once

#include <functional>
#include <utility>

#include "addon/js_payload.h"
#include "addon/values.h"

namespace sluicebox::addon {

class BoxPayload final : public JsPayload {
 public:
  using Value = std::function<Result<Napi::Value>(Napi::Env)>;
  explicit BoxPayload(Result<Value> result, std::function<void()> reclaim = nullptr)
      : result_(std::move(result)), reclaim_(std::move(reclaim)) {}

  void reclaim() noexcept override {
    // Out of memory here: the runtime's close takes it away.
    try {
      if (reclaim_) reclaim_();
    } catch (...) {  // NOLINT(bugprone-empty-catch)
    }
  }
  Napi::Value to_outcome(Napi::Env env) override {
    Napi::Object outcome = Napi::Object::New(env);
    auto value = result_.ok() ? result_.value()(env) : Result<Napi::Value>(result_.error());
    if (value.ok())
      outcome.Set("value", value.value());
    else
      outcome.Set("error", from_error(env, value.error()));
    return outcome;
  }

 private:
  Result<Value> result_;
  std::function<void()> reclaim_;
};

}  // namespace sluicebox::addon

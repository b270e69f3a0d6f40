// Operations that do as their request says. submit('testing.work', {ends: 'value' | 'error' | 'throw' | 'nothing',
// gate, stubborn, commits}).
#include <atomic>
#include <new>

#include "addon/testing/producer.h"
#include "addon/values.h"

namespace sluicebox::addon::testing {

namespace {

// Closed until opened by number: work with gate n waits while n > the number opened.
struct Gate {
  Mutex mutex;
  Condition changed;
  std::uint64_t opened GUARDED_BY(mutex) = 0;
  std::uint64_t waiting GUARDED_BY(mutex) = 0;
};
// Never destroyed: destroying a condition that somebody waits on would hang the exit of a process with stuck work.
Gate& gate = *new Gate;  // NOLINT(cppcoreguidelines-owning-memory)
std::atomic<std::uint64_t> reclaimed{0};

class NumberPayload final : public JsPayload {
 public:
  void reclaim() noexcept override { reclaimed.fetch_add(1); }
  Napi::Value to_outcome(Napi::Env env) override {
    Napi::Object outcome = Napi::Object::New(env);
    outcome.Set("value", Napi::Number::New(env, 42));
    return outcome;
  }
};

struct Request {
  std::string ends;
  std::uint64_t gate_number;
  bool stubborn;  // does not look at its cancel token
  bool commits;   // before it waits at the gate
};

template <typename Wanted>
void wait_at_gate(std::uint64_t number, Wanted wanted) {
  MutexLock lock(gate.mutex);
  ++gate.waiting;
  while (gate.opened < number && wanted()) {
    gate.changed.wait_until(gate.mutex, std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
  }
  --gate.waiting;
}

std::unique_ptr<JsPayload> work(const Request& request, image::OperationContext& context) {
  context.progress.report({.phase = "begin", .done = 1, .total = 2, .unit = ProgressUnit::kItems});
  if (request.commits && !context.cancel.try_commit()) return error_payload(Error(ErrorCode::kCancelled, "cancelled"));
  wait_at_gate(request.gate_number, [&] { return request.stubborn || !context.cancel.cancelled(); });
  if (auto open = context.cancel.check(); !open.ok()) return error_payload(std::move(open).error());
  context.progress.report({.phase = "end", .done = 2, .total = 2, .unit = ProgressUnit::kItems});
  if (request.ends == "throw") throw std::bad_alloc();
  // What is left to say when there is no memory for an answer.
  if (request.ends == "nothing") return nullptr;
  if (request.ends == "error") return error_payload(Error(ErrorCode::kIo, "the request asked for an error"));
  return std::make_unique<NumberPayload>();
}

ImageWork parse(const std::string& op, const Napi::Object& request) {
  if (op != "testing.work") return parse_image_work(op, request);
  return [parsed = Request{text_of(request, "ends"), whole_of(request, "gate"), flag_of(request, "stubborn"),
                           flag_of(request, "commits")}](image::OperationContext& context) {
    return work(parsed, context);
  };
}

}  // namespace

void define_work(Napi::Env env, Napi::Object testing) {
  Core::parse_work_with(parse);
  testing.Set("openGate", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                MutexLock lock(gate.mutex);
                gate.opened = static_cast<std::uint64_t>(info[0].As<Napi::Number>().Int64Value());
                gate.changed.notify_all();
              }));
  testing.Set("waitingAtGate", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                MutexLock lock(gate.mutex);
                return Napi::Number::New(info.Env(), static_cast<double>(gate.waiting));
              }));
  // The thread that hears of boxes.
  testing.Set("holdReactor", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                auto ground = core_of(info[0]).boxes()->ground();
                if (!ground.ok()) throw throwable(info.Env(), ground.error());
                const auto number = static_cast<std::uint64_t>(info[1].As<Napi::Number>().Int64Value());
                (*ground)->reactor->post([number] { wait_at_gate(number, [] { return true; }); });
              }));
  testing.Set("reclaimed", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                return Napi::Number::New(info.Env(), static_cast<double>(reclaimed.load()));
              }));
}

}  // namespace sluicebox::addon::testing

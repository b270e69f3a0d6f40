#include "addon/core.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "addon/values.h"
#include "event_queue/operation.h"

namespace sluicebox::addon {

namespace {

constexpr std::size_t kBatch = 256;
constexpr std::size_t kRecordWords = sizeof(event_queue::Record) / sizeof(std::uint32_t);
constexpr std::chrono::milliseconds kJoinTime{1000};
// One slot for each handle that there can be: a source takes at least one, so that whoever finds no handle finds no
// slot either, and is told when there is one. The queue's memory is had when it is made.
constexpr std::uint64_t kMaxEvents = event_queue::HandleTable::kMaxSlots;

// The worker's side of one submitted operation. Whatever happens to it, complete() is called.
class ImageTask final : public Task {
 public:
  ImageTask(ImageWork work, std::shared_ptr<const PathPolicy> policy, std::unique_ptr<event_queue::Operation> operation)
      : work_(std::move(work)), policy_(std::move(policy)), operation_(std::move(operation)) {}

  void run() override {
    image::OperationContext context{*policy_, operation_->cancel(), *operation_};
    if (auto open = context.cancel.check(); !open.ok())
      operation_->complete(error_payload(std::move(open).error()));
    else
      operation_->complete(work_(context));
  }
  void failed() noexcept override {
    // Small enough to be had even when the work's allocation was not; if not, the operation's destructor says the last
    // word.
    try {
      operation_->complete(error_payload(Error(ErrorCode::kOutOfMemory, "the operation ran out of memory")));
    } catch (...) {  // NOLINT(bugprone-empty-catch)
    }
  }
  void abandon() noexcept override {
    try {
      operation_->complete(error_payload(Error(ErrorCode::kCancelled, "the operation had not begun")));
    } catch (...) {  // NOLINT(bugprone-empty-catch)
    }
  }

 private:
  ImageWork work_;
  std::shared_ptr<const PathPolicy> policy_;
  std::unique_ptr<event_queue::Operation> operation_;
};

const char* unit_name(ProgressUnit unit) {
  switch (unit) {
    case ProgressUnit::kBytes:
      return "bytes";
    case ProgressUnit::kClusters:
      return "clusters";
    case ProgressUnit::kItems:
      return "items";
  }
  return "items";
}

}  // namespace

Napi::Function Core::define(Napi::Env env) {
  return DefineClass(env, "Core",
                     {
                         InstanceMethod<&Core::take>("take"),
                         InstanceMethod<&Core::submit>("submit"),
                         InstanceMethod<&Core::progress>("progress"),
                         InstanceMethod<&Core::claim>("claim"),
                         InstanceMethod<&Core::command>("command"),
                         InstanceMethod<&Core::news>("news"),
                         InstanceMethod<&Core::read>("read"),
                         InstanceMethod<&Core::release>("release"),
                         InstanceMethod<&Core::cancel>("cancel"),
                         InstanceMethod<&Core::begin_close>("beginClose"),
                         InstanceMethod<&Core::shutdown>("shutdown"),
                         InstanceMethod<&Core::stats>("stats"),
                         InstanceMethod<&Core::depth>("depth"),
                         InstanceMethod<&Core::hold>("hold"),
                     });
}

Core::Core(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Core>(info) {
  const Napi::Env env = info.Env();
  const Napi::Object options = object_argument(info, 0);
  if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array ||
      info[1].As<Napi::TypedArray>().ElementLength() < kBatch * kRecordWords) {
    throw Napi::TypeError::New(env, "records: expected a Uint32Array that holds a batch");
  }
  if (!info[2].IsFunction()) throw Napi::TypeError::New(env, "onBatch: expected a function");
  const std::uint64_t workers = whole_of(options, "workers");
  const std::uint64_t max_events = whole_of(options, "maxEvents");
  if (workers < 1 || workers > 1024) throw Napi::RangeError::New(env, "workers: expected 1 to 1024");
  if (max_events > kMaxEvents) throw Napi::RangeError::New(env, "maxEvents: expected at most 65536");

  auto queue = event_queue::Queue::create(
      {.limits = {.max_events = static_cast<std::uint32_t>(max_events), .max_bytes = whole_of(options, "maxBytes")}});
  if (!queue.ok()) throw throwable(env, queue.error());
  queue_ = std::move(queue).value();
  policy_ = std::make_shared<const PathPolicy>(texts_of(options, "directories"), flag_of(options, "restrictCallers"));
  records_ = Napi::Reference<Napi::Uint32Array>::New(info[1].As<Napi::Uint32Array>(), 1);
  on_batch_ = Napi::Persistent(info[2].As<Napi::Function>());
  pool_.emplace(static_cast<std::size_t>(workers));
  if (pool_->started() == 0) {
    throw throwable(env, Error(ErrorCode::kOutOfMemory, "the system gives this process no thread to work on")
                             .advise("raise its limit of threads or of memory (ulimit -u, pids.max, ulimit -v)"));
  }
  boxes_ = std::make_shared<Boxes>(queue_, *pool_, policy_);
  bell_ = std::make_unique<ThreadSafeBell>(env, [this] { answer(); });
  joined_ = false;
  queue_->attach_bell(bell_.get());
  // Added after the bell, so that it runs before the bell's function is torn down.
  napi_add_env_cleanup_hook(env, &Core::environment_ends, this);
  hooked_ = true;
}

Core::~Core() {
  // The same pair as was added: a hook is found by both.
  if (hooked_) napi_remove_env_cleanup_hook(Env(), &Core::environment_ends, this);
  // A collection must not stop the program: workers that have not ended yet end by themselves.
  end(std::chrono::milliseconds(0));
}

void Core::environment_ends(void* self) {
  auto* core = static_cast<Core*>(self);
  core->hooked_ = false;
  core->end(kJoinTime);
}

bool Core::end(std::chrono::milliseconds wait) {
  if (queue_ == nullptr) return true;  // the constructor threw
  queue_->begin_close();
  if (boxes_) boxes_->shutdown();
  queue_->settle();
  queue_->finish_close();
  queue_->detach_bell();
  if (bell_) bell_->release();
  if (pool_ && !joined_) {
    pool_->close();
    const auto now = std::chrono::steady_clock::now();
    if (!give_up_at_) give_up_at_ = now + kJoinTime;
    joined_ = pool_->join_until(std::min(now + wait, *give_up_at_));
  }
  return joined_;
}

// ---------- the drain ----------
std::uint32_t Core::take_batch(Napi::Env env) {
  std::array<event_queue::Record, kBatch> batch;
  Napi::Uint32Array records = records_.Value();
  // Looked up each time: a detached buffer has no length.
  if (records.ElementLength() < kBatch * kRecordWords) throw Napi::Error::New(env, "the records buffer was detached");
  const std::size_t count = queue_->take(batch);
  // The record's layout is the words' layout on a little-endian host, the only kind that Node.js runs on here.
  std::memcpy(records.Data(), batch.data(), count * sizeof(event_queue::Record));
  for (const auto& hook : after_take_) hook(count);
  return static_cast<std::uint32_t>(count);
}

Napi::Value Core::take(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), take_batch(info.Env())); }

void Core::answer() {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  try {
    // An empty batch is news as well: room was made.
    on_batch_.Call(env.Undefined(), {Napi::Number::New(env, take_batch(env))});
  } catch (const Napi::Error& error) {
    // A terminating worker throws at every call; it has no value to hand on. Anything else is the program's to hear.
    napi_value thrown = error.Value();
    if (thrown != nullptr) napi_fatal_exception(env, thrown);
  }
}

// ---------- operations ----------
Napi::Value Core::submit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw Napi::TypeError::New(env, "op: expected a string");
  const std::string op = info[0].As<Napi::String>().Utf8Value();
  const bool wants_progress = info[2].IsBoolean() && info[2].As<Napi::Boolean>().Value();
  if (Boxes::has(op)) return from_handle(env, boxes_->submit(env, op, object_argument(info, 1), wants_progress));
  ImageWork work = work_parser_(op, object_argument(info, 1));
  auto operation = event_queue::Operation::open(
      *queue_, wants_progress ? event_queue::Operation::Progress::kYes : event_queue::Operation::Progress::kNo);
  if (!operation.ok()) throw throwable(env, operation.error());
  const event_queue::HandleId id = operation.value()->id();
  pool_->submit(std::make_unique<ImageTask>(std::move(work), policy_, std::move(operation).value()));
  return from_handle(env, id);
}

Napi::Value Core::progress(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto report = queue_->take_progress(to_handle(info[0]));
  if (!report) return env.Undefined();
  Napi::Object object = Napi::Object::New(env);
  object.Set("phase", report->phase);
  object.Set("done", Napi::Number::New(env, static_cast<double>(report->done)));
  object.Set("total", report->total ? Napi::Number::New(env, static_cast<double>(*report->total)).As<Napi::Value>()
                                    : env.Null());
  object.Set("unit", unit_name(report->unit));
  return object;
}

Napi::Value Core::claim(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto claim = queue_->claim(to_handle(info[0]));
  if (!claim) return env.Undefined();
  const event_queue::OwnedPayload payload = claim->take_payload();
  if (payload == nullptr) return env.Null();
  // Only this door deposits payloads, and all of its payloads are JsPayloads.
  return static_cast<JsPayload&>(*payload).to_outcome(env);
}

Napi::Value Core::cancel(const Napi::CallbackInfo& info) {
  const auto in_flight = queue_->handles().in_flight(to_handle(info[0]));
  return Napi::Boolean::New(info.Env(), in_flight != nullptr && in_flight->cancel.cancel());
}

// ---------- the rest ----------
void Core::begin_close(const Napi::CallbackInfo&) { queue_->begin_close(); }

Napi::Value Core::shutdown(const Napi::CallbackInfo& info) {
  const double wait = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 0;
  // NaN and negative numbers do not wait; an hour is longer than anybody waits.
  const auto bounded = wait > 0 ? std::min(wait, 3600000.0) : 0;
  const bool ended = end(std::chrono::milliseconds(static_cast<std::int64_t>(bounded)));
  // It leads back to this object, which could otherwise never be collected. The bell no longer rings.
  on_batch_.Reset();
  return Napi::Boolean::New(info.Env(), ended);
}

Napi::Value Core::stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const event_queue::Stats stats = queue_->stats();
  const event_queue::HandleTable::Counters counters = queue_->handles().counters();
  const auto put = [env](Napi::Object& object, const char* key, auto value) {
    object.Set(key, Napi::Number::New(env, static_cast<double>(value)));
  };
  Napi::Object handles = Napi::Object::New(env);
  put(handles, "live", counters.live);
  put(handles, "claimed", counters.claimed);
  put(handles, "finalized", counters.finalized);
  Napi::Object lanes = Napi::Object::New(env);
  put(lanes, "open", stats.lanes_open);
  put(lanes, "bytes", stats.bytes);
  put(lanes, "stalled", stats.lanes_stalled);
  Napi::Object object = Napi::Object::New(env);
  put(object, "depth", stats.depth);
  put(object, "capacity", stats.capacity);
  put(object, "bytes", stats.bytes);
  put(object, "highWater", stats.high_water);
  put(object, "dropped", stats.dropped);
  put(object, "wakeups", stats.wakeups);
  object.Set("lanes", lanes);
  object.Set("handles", handles);
  return object;
}

Napi::Value Core::depth(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(queue_->stats().depth));
}

void Core::hold(const Napi::CallbackInfo& info) {
  bell_->hold(info[0].IsBoolean() && info[0].As<Napi::Boolean>().Value());
}

}  // namespace sluicebox::addon

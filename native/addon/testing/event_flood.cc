// Numbered events of several handles from several threads, each as fast as the queue takes them.
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "addon/testing/producer.h"
#include "addon/values.h"
#include "event_queue/source.h"

namespace sluicebox::addon::testing {

namespace {

constexpr std::uint8_t kKinds = 4;

// One thread's share: its handles in turn, an event each, numbered per handle from 0.
struct Producer {
  std::vector<std::shared_ptr<event_queue::Source>> sources;
  std::uint32_t channels = 0;
  std::uint64_t count = 0;  // events in all; 0: until stopped
};

struct Shared {
  std::shared_ptr<Room> room;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> posted{0};
  Mutex mutex;
  std::vector<int> thread_ids GUARDED_BY(mutex);
};

void produce(const Producer& producer, Shared& shared) {
  {
    MutexLock lock(shared.mutex);
    shared.thread_ids.push_back(gettid());
  }
  std::uint64_t number = 0;
  std::uint64_t made = 0;
  while (producer.count == 0 || made < producer.count) {
    const auto channel = static_cast<std::uint32_t>(number % producer.channels);
    for (const auto& source : producer.sources) {
      // Relaxed: a late look posts a few events more.
      if (shared.stop.load(std::memory_order_relaxed)) return;
      const event_queue::Record record{.kind = event_queue::RecordKind::kControl,
                                       .flags = static_cast<std::uint8_t>(number % kKinds),
                                       .value = number};
      for (;;) {
        const std::uint64_t seen = shared.room->takes();
        const event_queue::Posted posted = source->post(channel, record);
        if (posted == event_queue::Posted::kClosed) return;
        if (posted == event_queue::Posted::kQueued) break;
        if (shared.stop.load(std::memory_order_relaxed)) return;
        shared.room->wait_past(seen);
      }
      shared.posted.fetch_add(1, std::memory_order_relaxed);
      if (++made == producer.count) return;
    }
    ++number;
  }
}

}  // namespace

// new EventFlood(core, {producers, handles, channels, count}); count is per producer, 0: endless.
class EventFlood final : public Napi::ObjectWrap<EventFlood> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "EventFlood",
        {InstanceMethod<&EventFlood::start>("start"), InstanceMethod<&EventFlood::stop>("stop"),
         InstanceMethod<&EventFlood::posted>("posted"), InstanceMethod<&EventFlood::thread_ids>("threadIds")});
  }

  explicit EventFlood(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EventFlood>(info) {
    const Napi::Env env = info.Env();
    Core& core = core_of(info[0]);
    const auto options = info[1].As<Napi::Object>();
    shared_->room = room_of(core);
    Napi::Array ids = Napi::Array::New(env);
    const std::uint64_t producers = whole_of(options, "producers");
    const std::uint64_t handles = whole_of(options, "handles");
    const auto channels = static_cast<std::uint32_t>(whole_of(options, "channels"));
    for (std::uint64_t p = 0; p < producers; ++p) {
      Producer producer{.sources = {}, .channels = channels, .count = whole_of(options, "count")};
      for (std::uint64_t h = 0; h < handles; ++h) {
        auto source = core.queue()->reserve({.channels = channels, .bytes = 0});
        if (!source.ok()) throw throwable(env, source.error());
        ids.Set(ids.Length(), from_handle(env, source.value()->id()));
        producer.sources.push_back(std::move(source).value());
      }
      producers_.push_back(std::move(producer));
    }
    info.This().As<Napi::Object>().Set("ids", ids);
  }
  ~EventFlood() override { end(); }

 private:
  void start(const Napi::CallbackInfo&) {
    for (const Producer& producer : producers_) {
      threads_.emplace_back([&producer, shared = shared_] { produce(producer, *shared); });
    }
  }
  // Ends the producers and gives their slots back.
  void stop(const Napi::CallbackInfo&) { end(); }
  void end() {
    shared_->stop = true;
    shared_->room->made();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    producers_.clear();
  }
  Napi::Value posted(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(shared_->posted.load()));
  }
  Napi::Value thread_ids(const Napi::CallbackInfo& info) {
    MutexLock lock(shared_->mutex);
    Napi::Array ids = Napi::Array::New(info.Env());
    for (const int id : shared_->thread_ids) ids.Set(ids.Length(), Napi::Number::New(info.Env(), id));
    return ids;
  }

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::vector<Producer> producers_;
  std::vector<std::thread> threads_;
};

Napi::Function define_event_flood(Napi::Env env) { return EventFlood::define(env); }

}  // namespace sluicebox::addon::testing

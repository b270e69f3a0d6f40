// Numbered events of several handles from several threads, each as fast as the queue takes them.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
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
  // On a line of its own: producers that count must not slow each other down.
  alignas(64) std::atomic<std::uint64_t> posted{0};
};

struct Shared {
  std::shared_ptr<Room> room;
  // Of all that can be outstanding. Whoever waits until it was taken is woken once for many events, and the drain has
  // work meanwhile.
  std::uint64_t half = 1;
  std::atomic<bool> stop{false};
  Mutex mutex;
  std::vector<int> thread_ids GUARDED_BY(mutex);
};

void produce(Producer& producer, Shared& shared) {
  {
    MutexLock lock(shared.mutex);
    shared.thread_ids.push_back(gettid());
  }
  std::uint64_t number = 0;
  std::uint64_t made = 0;
  while (producer.count == 0 || made < producer.count) {
    const auto channel = static_cast<std::uint32_t>(number % producer.channels);
    const event_queue::Record record{.kind = event_queue::RecordKind::kControl,
                                     .flags = static_cast<std::uint8_t>(number % kKinds),
                                     .value = number};
    for (const auto& source : producer.sources) {
      // Relaxed: a late look posts a few events more.
      if (shared.stop.load(std::memory_order_relaxed)) return;
      event_queue::Posted posted = source->post(channel, record);
      while (posted == event_queue::Posted::kCoalesced) {
        // Tried once more after the mark was read: a take between the two would else be waited for in vain.
        const Room::Mark seen = shared.room->mark();
        posted = source->post(channel, record);
        if (posted != event_queue::Posted::kCoalesced) break;
        if (shared.stop.load(std::memory_order_relaxed)) return;
        shared.room->wait(seen, shared.half);
      }
      if (posted == event_queue::Posted::kClosed) return;
      producer.posted.store(++made, std::memory_order_relaxed);  // a gauge
      if (made == producer.count) return;
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
    shared_->half = std::max<std::uint64_t>(1, producers * handles * channels / 2);
    for (std::uint64_t p = 0; p < producers; ++p) {
      Producer& producer = producers_.emplace_back();
      producer.channels = channels;
      producer.count = whole_of(options, "count");
      for (std::uint64_t h = 0; h < handles; ++h) {
        auto source = core.queue()->reserve({.channels = channels, .bytes = 0});
        if (!source.ok()) throw throwable(env, source.error());
        ids.Set(ids.Length(), from_handle(env, source.value()->id()));
        producer.sources.push_back(std::move(source).value());
      }
    }
    info.This().As<Napi::Object>().Set("ids", ids);
  }
  ~EventFlood() override { end(); }

 private:
  void start(const Napi::CallbackInfo&) {
    for (Producer& producer : producers_) {
      threads_.emplace_back([&producer, shared = shared_] { produce(producer, *shared); });
    }
  }
  // Ends the producers and gives their slots back.
  void stop(const Napi::CallbackInfo&) { end(); }
  void end() {
    shared_->stop = true;
    shared_->room->made(0);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    for (Producer& producer : producers_) producer.sources.clear();
  }
  Napi::Value posted(const Napi::CallbackInfo& info) {
    std::uint64_t posted = 0;
    for (const Producer& producer : producers_) posted += producer.posted.load(std::memory_order_relaxed);
    return Napi::Number::New(info.Env(), static_cast<double>(posted));
  }
  Napi::Value thread_ids(const Napi::CallbackInfo& info) {
    MutexLock lock(shared_->mutex);
    Napi::Array ids = Napi::Array::New(info.Env());
    for (const int id : shared_->thread_ids) ids.Set(ids.Length(), Napi::Number::New(info.Env(), id));
    return ids;
  }

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::deque<Producer> producers_;
  std::vector<std::thread> threads_;
};

Napi::Function define_event_flood(Napi::Env env) { return EventFlood::define(env); }

}  // namespace sluicebox::addon::testing

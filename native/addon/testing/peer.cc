// The peer that the benchmarks measure against: one ThreadSafeFunction call for each event or chunk, as most addons do
// it.
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "addon/testing/producer.h"
#include "addon/values.h"

namespace sluicebox::addon::testing {

namespace {

struct Event {
  std::uint32_t handle;
  std::uint8_t kind;
  std::uint64_t value;
  std::unique_ptr<std::vector<char>> chunk;
};

void deliver(Napi::Env env, Napi::Function callback, std::nullptr_t*, Event* data) {
  const std::unique_ptr<Event> event(data);
  if (env == nullptr) return;
  if (event->chunk) {
    callback.Call({Napi::Number::New(env, event->handle),
                   Napi::Buffer<char>::Copy(env, event->chunk->data(), event->chunk->size())});
  } else {
    callback.Call({Napi::Number::New(env, event->handle), Napi::Number::New(env, event->kind),
                   Napi::Number::New(env, static_cast<double>(event->value))});
  }
}
using PeerFunction = Napi::TypedThreadSafeFunction<std::nullptr_t, Event, deliver>;

}  // namespace

// new Peer(callback, {producers, handles, count, chunk}); count is per producer; chunk 0: events without bytes.
class Peer final : public Napi::ObjectWrap<Peer> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Peer", {InstanceMethod<&Peer::start>("start"), InstanceMethod<&Peer::stop>("stop")});
  }

  explicit Peer(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Peer>(info) {
    const auto options = info[1].As<Napi::Object>();
    producers_ = whole_of(options, "producers");
    handles_ = static_cast<std::uint32_t>(whole_of(options, "handles"));
    count_ = whole_of(options, "count");
    chunk_ = whole_of(options, "chunk");
    function_ = PeerFunction::New(info.Env(), info[0].As<Napi::Function>(), "peer", 0, producers_);
  }
  ~Peer() override { end(); }

 private:
  void start(const Napi::CallbackInfo&) {
    for (std::uint64_t p = 0; p < producers_; ++p) {
      threads_.emplace_back([this, p] { produce(static_cast<std::uint32_t>(p) * handles_); });
    }
  }
  void produce(std::uint32_t first_handle) {
    const std::vector<char> bytes(chunk_, 1);
    for (std::uint64_t i = 0; i < count_ && !stop_; ++i) {
      auto event = std::make_unique<Event>(Event{.handle = first_handle + static_cast<std::uint32_t>(i % handles_),
                                                 .kind = static_cast<std::uint8_t>((i / handles_) % 4),
                                                 .value = i / handles_,
                                                 .chunk = nullptr});
      if (chunk_ > 0) event->chunk = std::make_unique<std::vector<char>>(bytes);
      if (function_.NonBlockingCall(event.get()) != napi_ok) return;
      event.release();  // NOLINT(bugprone-unused-return-value): deliver() owns it now
    }
  }
  void stop(const Napi::CallbackInfo&) { end(); }
  void end() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    for (std::size_t i = 0; i < threads_.size(); ++i) function_.Release();
    threads_.clear();
  }

  std::uint64_t producers_ = 1;
  std::uint32_t handles_ = 1;
  std::uint64_t count_ = 0;
  std::size_t chunk_ = 0;
  std::atomic<bool> stop_{false};
  PeerFunction function_;
  std::vector<std::thread> threads_;
};

Napi::Function define_peer(Napi::Env env) { return Peer::define(env); }

}  // namespace sluicebox::addon::testing

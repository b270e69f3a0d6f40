#include "addon/testing/producer.h"

#include <unistd.h>

#include "addon/values.h"
#include "event_queue/payload.h"
#include "event_queue/source.h"

namespace sluicebox::addon {

namespace testing {

std::shared_ptr<Room> room_of(Core& core) {
  auto room = std::make_shared<Room>();
  core.after_take([room](std::size_t count) { room->made(count); });
  return room;
}

Core& core_of(const Napi::Value& value) {
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), "core: expected a Core");
  return *Napi::ObjectWrap<Core>::Unwrap(value.As<Napi::Object>());
}

namespace {

// Slots of a queue that are taken and never used: what a crowded queue looks like to a submission.
class Reservation final : public Napi::ObjectWrap<Reservation> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Reservation", {InstanceMethod<&Reservation::release>("release")});
  }
  explicit Reservation(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Reservation>(info) {
    auto source = core_of(info[0]).queue()->reserve({.channels = info[1].As<Napi::Number>().Uint32Value(), .bytes = 0});
    if (!source.ok()) throw throwable(info.Env(), source.error());
    source_ = std::move(source).value();
  }
  void release(const Napi::CallbackInfo&) {
    if (source_) source_->queue().claim(source_->id());
    source_.reset();
  }

 private:
  std::shared_ptr<event_queue::Source> source_;
};

}  // namespace

}  // namespace testing

void define_test_producer(Napi::Env env, Napi::Object exports) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("EventFlood", testing::define_event_flood(env));
  object.Set("LaneFlood", testing::define_lane_flood(env));
  object.Set("Peer", testing::define_peer(env));
  object.Set("Reservation", testing::Reservation::define(env));
  object.Set("threadId", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
               return Napi::Number::New(info.Env(), gettid());
             }));
  object.Set("livePayloads", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
               return Napi::Number::New(info.Env(), static_cast<double>(event_queue::Payload::live()));
             }));
  testing::define_work(env, object);
  exports.Set("testing", object);
}

}  // namespace sluicebox::addon

// Output of several executions' worth of lanes, written in chunks of one size by one thread, as a reactor would.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "addon/testing/producer.h"
#include "addon/values.h"
#include "event_queue/lane.h"
#include "event_queue/source.h"

namespace sluicebox::addon::testing {

namespace {

struct Stream {
  std::shared_ptr<event_queue::Source> source;
  std::shared_ptr<event_queue::Lane> lane;
  std::uint64_t left = 0;
  std::byte next{0};  // byte k of a stream is k mod 251: a gap or a repeat shows
};

void fill(Stream& stream, MutableBytes chunk) {
  for (std::byte& byte : chunk) {
    byte = stream.next;
    stream.next = static_cast<std::byte>((std::to_integer<unsigned>(stream.next) + 1) % 251);
  }
}

}  // namespace

// new LaneFlood(core, {lanes, chunk, bytes, highWaterMark, patterned})
class LaneFlood final : public Napi::ObjectWrap<LaneFlood> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "LaneFlood",
                       {InstanceMethod<&LaneFlood::start>("start"), InstanceMethod<&LaneFlood::read>("read"),
                        InstanceMethod<&LaneFlood::stop>("stop"), InstanceMethod<&LaneFlood::held>("held")});
  }

  explicit LaneFlood(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LaneFlood>(info) {
    const Napi::Env env = info.Env();
    Core& core = core_of(info[0]);
    const auto options = info[1].As<Napi::Object>();
    chunk_ = whole_of(options, "chunk");
    patterned_ = flag_of(options, "patterned");
    const std::uint64_t mark = whole_of(options, "highWaterMark");
    Napi::Array ids = Napi::Array::New(env);
    for (std::uint64_t i = 0; i < whole_of(options, "lanes"); ++i) {
      auto source = core.queue()->reserve({.channels = 1, .bytes = mark});
      if (!source.ok()) throw throwable(env, source.error());
      auto lane = event_queue::Lane::open(
          source.value(),
          {.channel = 0, .number = 0, .high_water_mark = mark, .on_room = [room = room_] { room->made(1); }});
      if (!lane.ok()) throw throwable(env, lane.error());
      ids.Set(ids.Length(), from_handle(env, source.value()->id()));
      streams_.push_back({std::move(source).value(), std::move(lane).value(), whole_of(options, "bytes")});
    }
    info.This().As<Napi::Object>().Set("ids", ids);
  }
  ~LaneFlood() override { end(); }

 private:
  void start(const Napi::CallbackInfo&) {
    thread_ = std::thread([this] { produce(); });
  }
  void produce() {
    std::vector<std::byte> chunk(chunk_, std::byte{1});
    std::size_t open = streams_.size();
    while (open > 0 && !stop_) {
      const Room::Mark seen = room_->mark();
      bool wrote = false;
      open = 0;
      for (Stream& stream : streams_) {
        if (stream.left == 0) continue;
        ++open;
        wrote = turn(stream, chunk) || wrote;
      }
      if (!wrote && open > 0) room_->wait(seen, 1);
    }
  }
  // Some chunks of one stream, then the next one's turn. False: it was full at once.
  bool turn(Stream& stream, std::vector<std::byte>& chunk) {
    for (int i = 0; i < 64; ++i) {
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), stream.left));
      const std::byte before = stream.next;
      if (patterned_) fill(stream, MutableBytes(chunk).first(size));
      const std::size_t accepted = stream.lane->write(Bytes(chunk).first(size));
      stream.left -= accepted;
      if (stream.left == 0) {
        stream.lane->finish();
        return true;
      }
      if (accepted < size) {
        stream.next = static_cast<std::byte>((std::to_integer<unsigned>(before) + accepted) % 251);
        return accepted > 0 || i > 0;
      }
    }
    return true;
  }

  // read(index, limit?): {chunk: Buffer, more, ended}; the Buffer owns its bytes, all that are held or `limit` of them.
  Napi::Value read(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::uint32_t index = info[0].As<Napi::Number>().Uint32Value();
    // Records of a flood that was stopped may still be under way.
    if (index >= streams_.size()) throw Napi::RangeError::New(env, "the flood was stopped");
    event_queue::Lane& lane = *streams_[index].lane;
    std::size_t held = lane.held();
    if (info[1].IsNumber()) held = std::min<std::size_t>(held, info[1].As<Napi::Number>().Uint32Value());
    Napi::Buffer<std::byte> buffer = Napi::Buffer<std::byte>::New(env, held);
    const event_queue::Lane::Read read = lane.read({buffer.Data(), held});
    Napi::Object result = Napi::Object::New(env);
    result.Set("chunk", buffer);
    result.Set("more", read.more);
    result.Set("ended", read.ended);
    return result;
  }
  void stop(const Napi::CallbackInfo&) { end(); }
  void end() {
    stop_ = true;
    room_->made(0);
    if (thread_.joinable()) thread_.join();
    for (Stream& stream : streams_) stream.lane->discard();
    streams_.clear();
  }
  Napi::Value held(const Napi::CallbackInfo& info) {
    std::size_t bytes = 0;
    for (const Stream& stream : streams_) bytes += stream.lane->held();
    return Napi::Number::New(info.Env(), static_cast<double>(bytes));
  }

  std::shared_ptr<Room> room_ = std::make_shared<Room>();
  std::vector<Stream> streams_;
  std::size_t chunk_ = 0;
  bool patterned_ = false;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

Napi::Function define_lane_flood(Napi::Env env) { return LaneFlood::define(env); }

}  // namespace sluicebox::addon::testing

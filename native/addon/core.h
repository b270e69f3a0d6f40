// core.h: what one Runtime has natively: its queue, its workers, its bell; and the one order in which they end.
// Knows: Node-API, queue, thread pool, image work. Does not know: promises, listeners (the SDK's).
// Threads: made, called and destroyed on the JavaScript thread; workers see the queue and the policy through shared
// pointers.
#pragma once

#include <napi.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "addon/bell.h"
#include "addon/boxes.h"
#include "addon/image_work.h"
#include "base/path_policy.h"
#include "base/thread_pool.h"
#include "event_queue/queue.h"

namespace sluicebox::addon {

class Core final : public Napi::ObjectWrap<Core> {
 public:
  static Napi::Function define(Napi::Env env);
  // new Core(options, records: Uint32Array, onBatch: (count) => void)
  explicit Core(const Napi::CallbackInfo& info);
  ~Core() override;

  // For the tests' producers, which live behind the same door: the queue, the boxes, a hook that runs after each take
  // (room was made in the queue), and operations beside those of images.
  using WorkParser = ImageWork (*)(const std::string& op, const Napi::Object& request);
  const std::shared_ptr<event_queue::Queue>& queue() const { return queue_; }
  const std::shared_ptr<Boxes>& boxes() const { return boxes_; }
  void after_take(std::function<void(std::size_t count)> hook) { after_take_.push_back(std::move(hook)); }
  static void parse_work_with(WorkParser parser) { work_parser_ = parser; }

 private:
  Napi::Value take(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value progress(const Napi::CallbackInfo& info);
  Napi::Value command(const Napi::CallbackInfo& info) { return boxes_->command(info); }
  Napi::Value news(const Napi::CallbackInfo& info) { return boxes_->news(info); }
  Napi::Value read(const Napi::CallbackInfo& info) { return boxes_->read(info); }
  void release(const Napi::CallbackInfo& info) { boxes_->release(info); }
  Napi::Value claim(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  void begin_close(const Napi::CallbackInfo& info);
  Napi::Value shutdown(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value depth(const Napi::CallbackInfo& info);
  void hold(const Napi::CallbackInfo& info);

  // Moves a batch into the records buffer.
  std::uint32_t take_batch(Napi::Env env);
  // The bell rang: one batch, one crossing into JavaScript.
  void answer();
  // The end, the same for close(), collection and teardown of the environment. False: a worker is stuck. However often
  // it is called, it waits no longer than kJoinTime in all: who was stuck for that long is left behind at once.
  bool end(std::chrono::milliseconds wait);
  // The environment's cleanup hook.
  static void environment_ends(void* self);

  std::shared_ptr<event_queue::Queue> queue_;
  std::shared_ptr<const PathPolicy> policy_;
  std::optional<ThreadPool> pool_;
  std::shared_ptr<Boxes> boxes_;
  std::unique_ptr<ThreadSafeBell> bell_;
  Napi::Reference<Napi::Uint32Array> records_;
  Napi::FunctionReference on_batch_;
  std::vector<std::function<void(std::size_t count)>> after_take_;
  // Set while the module loads, before any Core exists.
  static inline WorkParser work_parser_ = parse_image_work;
  bool hooked_ = false;
  bool joined_ = true;
  // Set by the first end().
  std::optional<std::chrono::steady_clock::time_point> give_up_at_;
};

}  // namespace sluicebox::addon

// mailbox.h: what happened to one box or execution, from the reactor to whoever asks for its news.
// Knows: Node-API, the queue's sources. Does not know: boxes.
// Threads: put() and shut() from any; take() on the JavaScript thread, where the news become values.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "event_queue/source.h"

namespace sluicebox::addon {

// Fills in one News of lib/native.ts.
using News = std::function<void(Napi::Object&)>;

class Mailbox {
 public:
  explicit Mailbox(std::shared_ptr<event_queue::Source> source) : source_(std::move(source)) {}

  // Announced by one record of that kind on that channel, however many news wait.
  void put(News news, event_queue::RecordKind kind, std::uint32_t channel) EXCLUDES(mutex_);
  std::vector<News> take() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return std::exchange(news_, {});
  }
  // Nobody asks any more; the source's slots go back.
  void shut() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::shared_ptr<event_queue::Source> source_ GUARDED_BY(mutex_);
  std::vector<News> news_ GUARDED_BY(mutex_);
};

// A command's answer among the news.
News answer_news(std::uint32_t request, std::function<Napi::Value(Napi::Env)> value);
News error_news(std::uint32_t request, Error error);

}  // namespace sluicebox::addon

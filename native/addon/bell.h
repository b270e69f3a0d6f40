// bell.h: the queue's bell as a ThreadSafeFunction: unbounded, because the queue never has two rings outstanding, and a
// bounded one can deadlock (nodejs/node#58723). Knows: Node-API, the queue's Bell. Does not know: records. Threads:
// ring() from any; all else on the JavaScript thread.
#pragma once

#include <node_api.h>

#include <functional>

#include "event_queue/bell.h"

namespace sluicebox::addon {

class ThreadSafeBell final : public event_queue::Bell {
 public:
  // `answer` runs on the JavaScript thread, inside a callback scope, once a ring. Does not keep the event loop alive.
  ThreadSafeBell(napi_env env, std::function<void()> answer);
  ~ThreadSafeBell() override;
  ThreadSafeBell(const ThreadSafeBell&) = delete;
  ThreadSafeBell& operator=(const ThreadSafeBell&) = delete;

  void ring() noexcept override;
  // Whether a pending ring keeps the event loop alive.
  void hold(bool on);
  // After it, ring() does nothing. The caller has detached the bell from its queue: nobody is inside ring().
  // Idempotent.
  void release();

 private:
  struct Link;  // outlives the bell until the environment has finalised the function
  napi_env env_;
  Link* link_ = nullptr;
};

}  // namespace sluicebox::addon

#include "addon/bell.h"

#include <utility>

namespace sluicebox::addon {

// Read and written on the JavaScript thread only, except for `function`, which is constant while anybody may ring.
struct ThreadSafeBell::Link {
  std::function<void()> answer;
  napi_threadsafe_function function = nullptr;
  bool released = false;
};

ThreadSafeBell::ThreadSafeBell(napi_env env, std::function<void()> answer)
    : env_(env), link_(new Link{std::move(answer)}) {  // owned by the environment: the finaliser below deletes it
  napi_value name = nullptr;
  napi_create_string_utf8(env, "sluicebox.drain", NAPI_AUTO_LENGTH, &name);
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, name, 0, 1, link_, [](napi_env, void* link, void*) { delete static_cast<Link*>(link); },
      link_,
      [](napi_env callback_env, napi_value, void* context, void*) {
        auto* link = static_cast<Link*>(context);
        if (callback_env != nullptr && !link->released) link->answer();
      },
      &link_->function);
  if (status != napi_ok) {
    delete link_;
    link_ = nullptr;
    return;
  }
  napi_unref_threadsafe_function(env, link_->function);
}

ThreadSafeBell::~ThreadSafeBell() { release(); }

void ThreadSafeBell::ring() noexcept {
  if (link_ != nullptr) napi_call_threadsafe_function(link_->function, nullptr, napi_tsfn_nonblocking);
}

void ThreadSafeBell::hold(bool on) {
  if (link_ == nullptr) return;
  if (on)
    napi_ref_threadsafe_function(env_, link_->function);
  else
    napi_unref_threadsafe_function(env_, link_->function);
}

void ThreadSafeBell::release() {
  Link* link = std::exchange(link_, nullptr);
  if (link == nullptr) return;
  link->released = true;
  // Aborts what is still queued; the finaliser runs later and frees the link.
  napi_release_threadsafe_function(link->function, napi_tsfn_abort);
}

}  // namespace sluicebox::addon

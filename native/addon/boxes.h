// boxes.h: all boxes and executions of one runtime: what its operations do, and which handle is which.
// Knows: Node-API, box/, queue, thread pool. Does not know: promises.
// Threads: the JavaScript thread, but for what the work itself does on workers and on the reactor.
#pragma once

#include <napi.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "addon/box_ground.h"
#include "addon/box_operations.h"
#include "addon/open_box.h"
#include "addon/open_execution.h"
#include "base/path_policy.h"
#include "base/thread_pool.h"
#include "event_queue/operation.h"

namespace sluicebox::addon {

class Boxes final : public std::enable_shared_from_this<Boxes> {
 public:
  Boxes(std::shared_ptr<event_queue::Queue> queue, ThreadPool& pool, std::shared_ptr<const PathPolicy> policy)
      : queue_(std::move(queue)), pool_(pool), policy_(std::move(policy)) {}

  // Whether `op` is one of a box: 'box.create', 'box.open', 'box.list', 'box.means', 'box.configure', 'box.start',
  // 'box.remove', 'box.rebase', 'box.resize', 'box.clone', 'box.snapshot', 'box.snapshots', 'box.dropSnapshot',
  // 'box.restore', 'exec'.
  static bool has(const std::string& op) { return op == "exec" || op.rfind("box.", 0) == 0; }
  // Throws a TypeError for a request that the SDK would not have sent, a NativeError (queue_full) for one that finds no
  // room.
  event_queue::HandleId submit(Napi::Env env, const std::string& op, const Napi::Object& request, bool wants_progress);

  // The rest of the door: see Core in lib/native.ts.
  Napi::Value command(const Napi::CallbackInfo& info);
  Napi::Value news(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  void release(const Napi::CallbackInfo& info);

  // Ends every box by hanging up, and the reactor. Nothing is posted afterwards. Idempotent.
  void shutdown();

  // --- for the payloads that hand a box or an execution to JavaScript ---
  void adopt(std::shared_ptr<OpenBox> open);
  void adopt(std::shared_ptr<OpenExecution> open);
  std::shared_ptr<OpenBox> find(const std::string& id) const;

  // Made when the first box is asked for: a runtime without boxes has no reactor.
  Result<std::shared_ptr<BoxGround>> ground();

 private:
  using Operation = std::shared_ptr<event_queue::Operation>;

  Operation open_operation(Napi::Env env, bool wants_progress);
  event_queue::HandleId create(Napi::Env env, const Napi::Object& request, bool wants_progress);
  event_queue::HandleId create(Napi::Env env, const CreateRequest& wanted, bool wants_progress);
  // In box_snapshots.cc.
  event_queue::HandleId clone(Napi::Env env, const Napi::Object& request, bool wants_progress);
  event_queue::HandleId snapshot(Napi::Env env, const Napi::Object& request, bool wants_progress);
  event_queue::HandleId list_snapshots(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId drop_snapshot(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId restore(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId open(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId list(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId means(Napi::Env env);
  event_queue::HandleId start(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId remove(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId configure(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId rebase(Napi::Env env, const Napi::Object& request, bool wants_progress);
  event_queue::HandleId resize(Napi::Env env, const Napi::Object& request);
  event_queue::HandleId execute(Napi::Env env, const Napi::Object& request);
  std::shared_ptr<OpenBox> box_of(const Napi::Object& request);
  std::shared_ptr<OpenBox> reserve_box(Napi::Env env);
  void command_box(const std::shared_ptr<OpenBox>& open, std::uint32_t number, const std::string& verb,
                   const Napi::Object& request);
  void command_execution(const std::shared_ptr<OpenExecution>& open, std::uint32_t number, const std::string& verb,
                         const Napi::Object& request);

  const std::shared_ptr<event_queue::Queue> queue_;
  ThreadPool& pool_;
  const std::shared_ptr<const PathPolicy> policy_;  // of the images that boxes have for disks
  std::shared_ptr<BoxGround> ground_;
  bool ended_ = false;
  std::uint32_t next_request_ = 1;
  std::unordered_map<std::uint64_t, std::shared_ptr<OpenBox>> boxes_;
  std::unordered_map<std::uint64_t, std::shared_ptr<OpenExecution>> executions_;
};

}  // namespace sluicebox::addon

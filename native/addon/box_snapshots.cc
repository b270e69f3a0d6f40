// What a runtime's operations on snapshots and clones of its boxes do.
#include <chrono>
#include <utility>

#include "addon/box_operations.h"
#include "addon/box_payload.h"
#include "addon/boxes.h"
#include "addon/values.h"
#include "box/snapshot_box.h"
#include "box/snapshots.h"

namespace sluicebox::addon {

namespace {

using event_queue::HandleId;

Napi::Object snapshot_to_js(Napi::Env env, const box::SnapshotRecord& snapshot) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", snapshot.id);
  object.Set("name", snapshot.name);
  object.Set("createdAt", number(env, snapshot.created_at_ms));
  object.Set("memory", Napi::Boolean::New(env, snapshot.memory));
  object.Set("bytes", number(env, snapshot.bytes));
  object.Set("pausedMs", number(env, snapshot.paused_ms));
  if (!snapshot.parent.empty()) object.Set("parent", snapshot.parent);
  object.Set("labels", snapshot.labels);
  return object;
}

// On a worker: what `work` gives, or fails with, is the operation's result.
template <typename Work>
void complete_with(event_queue::Operation& operation, const Work& work) {
  auto result = work();
  if (!result.ok()) return operation.complete(std::make_unique<BoxPayload>(std::move(result).error()));
  operation.complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(result).value())));
}

}  // namespace

HandleId Boxes::clone(Napi::Env env, const Napi::Object& request, bool wants_progress) {
  const auto open = box_of(request);
  CreateRequest wanted{.home = text_of(request, "home"),
                       .spec = open->box->record().spec,
                       .boot_timeout = std::chrono::milliseconds(whole_of(request, "bootTimeoutMs")),
                       .from = CreateRequest::From{
                           .source = open->box, .snapshot = text_of(request, "snapshot"), .memory = std::nullopt}};
  wanted.spec.name = optional_text_of(request, "name");
  wanted.spec.keep = wanted.spec.name.has_value();
  if (!request.Get("memory").IsUndefined()) wanted.from->memory = flag_of(request, "memory");
  return create(env, wanted, wants_progress);
}

HandleId Boxes::snapshot(Napi::Env env, const Napi::Object& request, bool wants_progress) {
  const auto open = box_of(request);
  const box::SnapshotRequest wanted{
      .name = text_of(request, "name"), .memory = flag_of(request, "memory"), .labels = text_of(request, "labels")};
  Operation operation = open_operation(env, wants_progress);
  ground_->on_worker(operation, [operation, open, wanted, ground = ground_, policy = policy_] {
    complete_with(*operation, [&]() -> Result<BoxPayload::Value> {
      image::OperationContext context{*policy, operation->cancel(), *operation};
      context.chain_depth = image::kMaxOwnChainDepth;
      auto taken = TRY(box::snapshot_box(open->box, *ground->reactor, wanted, open->is_held(), context));
      return BoxPayload::Value([taken, open](Napi::Env at) -> Result<Napi::Value> {
        Napi::Object value = Napi::Object::New(at);
        value.Set("snapshot", snapshot_to_js(at, taken));
        value.Set("record", to_js(at, open->view()));
        return value.As<Napi::Value>();
      });
    });
  });
  return operation->id();
}

HandleId Boxes::list_snapshots(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  Operation operation = open_operation(env, false);
  ground_->on_worker(operation, [operation, open] {
    complete_with(*operation, [&]() -> Result<BoxPayload::Value> {
      const UniqueFd directory = TRY(open->box->home().directory(open->box->record().id));
      auto list = TRY(box::list_snapshots(directory.get()));
      return BoxPayload::Value([list](Napi::Env at) -> Result<Napi::Value> {
        Napi::Array array = Napi::Array::New(at, list.size());
        for (std::uint32_t i = 0; i < list.size(); ++i) array.Set(i, snapshot_to_js(at, list[i]));
        return array.As<Napi::Value>();
      });
    });
  });
  return operation->id();
}

HandleId Boxes::drop_snapshot(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  const std::string name = text_of(request, "name");
  Operation operation = open_operation(env, false);
  ground_->on_worker(operation, [operation, open, name, ground = ground_, policy = policy_] {
    complete_with(*operation, [&]() -> Result<BoxPayload::Value> {
      image::OperationContext context{*policy, operation->cancel(), *operation};
      context.chain_depth = image::kMaxOwnChainDepth;
      TRY(box::remove_snapshot(open->box, *ground->reactor, name, open->is_held(), context));
      return BoxPayload::Value([open](Napi::Env at) -> Result<Napi::Value> { return to_js(at, open->view()); });
    });
  });
  return operation->id();
}

HandleId Boxes::restore(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  const std::string name = text_of(request, "name");
  const bool check_only = flag_of(request, "checkOnly");
  Operation operation = open_operation(env, false);
  ground_->on_worker(operation, [operation, open, name, check_only, ground = ground_] {
    complete_with(*operation, [&]() -> Result<BoxPayload::Value> {
      TRY(restore_box(*ground, *open, name, check_only));
      const bool goes_on = open->memory.has_value();
      return BoxPayload::Value([goes_on, open](Napi::Env at) -> Result<Napi::Value> {
        Napi::Object value = Napi::Object::New(at);
        value.Set("goesOn", Napi::Boolean::New(at, goes_on));
        value.Set("record", to_js(at, open->view()));
        return value.As<Napi::Value>();
      });
    });
  });
  return operation->id();
}

}  // namespace sluicebox::addon

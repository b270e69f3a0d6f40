#include "addon/open_box.h"

#include "addon/values.h"

namespace sluicebox::addon {

namespace {

using event_queue::RecordKind;

const char* reason_of(bool killed) { return killed ? "killed" : "requested"; }

}  // namespace

void OpenBox::changed(const box::StateChange& change) {
  state_ = change.state;
  const auto news = [change](Napi::Object& object) {
    object.Set("kind", "state");
    object.Set("state", box::state_name(change.state));
    object.Set("previous", box::state_name(change.previous));
    if (change.state == box::State::kStopped) object.Set("reason", reason_of(change.killed));
    if (change.error) object.Set("error", from_error(object.Env(), *change.error));
  };
  mailbox_.put(news, RecordKind::kControl, kNewsChannel);
  if (on_change) on_change(change);
}

void OpenBox::stopped(std::uint32_t request, Result<bool> killed) {
  if (!killed.ok()) return mailbox_.put(error_news(request, killed.error()), RecordKind::kControl, kNewsChannel);
  const auto value = [killed = killed.value()](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("reason", reason_of(killed));
    return object;
  };
  mailbox_.put(answer_news(request, value), RecordKind::kControl, kNewsChannel);
}

}  // namespace sluicebox::addon

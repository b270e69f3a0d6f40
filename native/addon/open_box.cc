#include "addon/open_box.h"

#include "addon/values.h"

namespace sluicebox::addon {

namespace {

using event_queue::RecordKind;

const char* reason_of(box::StopReason reason) {
  switch (reason) {
    case box::StopReason::kRequested:
      return "requested";
    case box::StopReason::kGuestShutdown:
      return "guest-shutdown";
    case box::StopReason::kKilled:
      return "killed";
  }
  return "unknown";
}

}  // namespace

BoxView OpenBox::view() const {
  return {.record = box->record(),
          .state = state(),
          .started_at_ms = box->started_at_ms(),
          .warnings = box->warnings(),
          .directory = box->home().path_of(box->record().id)};
}

void OpenBox::changed(const box::StateChange& change) {
  state_ = change.state;
  const auto news = [change](Napi::Object& object) {
    object.Set("kind", "state");
    object.Set("state", box::state_name(change.state));
    object.Set("previous", box::state_name(change.previous));
    if (change.state == box::State::kStopped) object.Set("reason", reason_of(change.reason));
    if (change.error) object.Set("error", from_error(object.Env(), *change.error));
  };
  mailbox_.put(news, RecordKind::kControl, kNewsChannel);
  if (on_change) on_change(change);
}

void OpenBox::stopped(std::uint32_t request, Result<box::StopReason> reason) {
  if (!reason.ok()) return mailbox_.put(error_news(request, reason.error()), RecordKind::kControl, kNewsChannel);
  const auto value = [reason = reason.value()](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("reason", reason_of(reason));
    return object;
  };
  mailbox_.put(answer_news(request, value), RecordKind::kControl, kNewsChannel);
}

void OpenBox::answered(std::uint32_t request, Status done) {
  if (!done.ok()) return mailbox_.put(error_news(request, done.error()), RecordKind::kControl, kNewsChannel);
  const auto value = [](Napi::Env env) { return Napi::Object::New(env); };
  mailbox_.put(answer_news(request, value), RecordKind::kControl, kNewsChannel);
}

}  // namespace sluicebox::addon

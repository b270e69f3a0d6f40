#include "addon/open_execution.h"

#include <csignal>

#include "addon/values.h"
#include "event_queue/queue.h"

namespace sluicebox::addon {

namespace {

using event_queue::RecordKind;
using protocol::Stream;

constexpr std::uint32_t kStdout = 1;
constexpr std::uint32_t kStderr = 2;

Stream stream_of(std::uint32_t number) { return number == kStderr ? Stream::kStderr : Stream::kStdout; }

}  // namespace

Result<std::shared_ptr<OpenExecution>> OpenExecution::open(event_queue::Queue& queue,
                                                           std::shared_ptr<box::Reactor> reactor,
                                                           std::uint64_t high_water_mark) {
  auto source = TRY(queue.reserve(kShare));
  auto open = std::make_shared<OpenExecution>(source, std::move(reactor));
  TRY(open->open_lanes(source, high_water_mark));
  return open;
}

OpenExecution::OpenExecution(std::shared_ptr<event_queue::Source> source, std::shared_ptr<box::Reactor> reactor)
    : id_(source->id()), reactor_(std::move(reactor)), mailbox_(std::move(source)) {}

Status OpenExecution::open_lanes(const std::shared_ptr<event_queue::Source>& source, std::uint64_t high_water_mark) {
  for (const std::uint32_t number : {kStdout, kStderr}) {
    // The lane is part of what it calls back.
    const auto room = [weak = weak_from_this(), number] {
      if (const auto self = weak.lock()) self->resume(number);
    };
    lane_sink(number).lane = TRY(event_queue::Lane::open(source, {.channel = number - 1,
                                                                  .number = static_cast<std::uint8_t>(number),
                                                                  .high_water_mark = high_water_mark,
                                                                  .reserved = false,
                                                                  .on_room = room}));
  }
  return ok_status();
}

void OpenExecution::with(std::function<void(box::Execution&)> use) {
  reactor_->post([self = shared_from_this(), use = std::move(use)] {
    if (self->execution_) use(*self->execution_);
  });
}

event_queue::Lane* OpenExecution::lane(std::uint32_t number) {
  return number == kStdout || number == kStderr ? lane_sink(number).lane.get() : nullptr;
}

void OpenExecution::was_read(std::uint32_t number) { resume(number); }

// At most one on its way a stream: what it finds when it gets there is what counts.
void OpenExecution::resume(std::uint32_t number) {
  LaneSink& sink = lane_sink(number);
  if (sink.resume_posted.exchange(true)) return;
  with([&sink, number](box::Execution& execution) {
    sink.resume_posted = false;
    execution.resume(stream_of(number));
  });
}

void OpenExecution::release() {
  mailbox_.shut();
  out_.lane->discard();
  err_.lane->discard();
  reactor_->post([self = shared_from_this()] {
    const auto execution = std::exchange(self->execution_, nullptr);
    if (!execution) return;
    execution->discard(Stream::kStdout);
    execution->discard(Stream::kStderr);
  });
}

void OpenExecution::kill_unowned() {
  with([](box::Execution& execution) {
    execution.kill(0, {.signal = SIGKILL, .scope = protocol::KillScope::kGroup, .force_after_ms = -1});
  });
  release();
}

box::StreamSink& OpenExecution::sink(Stream stream) { return stream == Stream::kStderr ? err_ : out_; }

void OpenExecution::answered(std::uint32_t request, Result<bool> answer) {
  if (request == 0) return;
  if (!answer.ok()) return mailbox_.put(error_news(request, answer.error()), RecordKind::kControl, kNewsChannel);
  // Of a kill: whether it reached a live process. Of anything else: that it is done.
  const auto value = [delivered = answer.value()](Napi::Env env) { return Napi::Boolean::New(env, delivered); };
  mailbox_.put(answer_news(request, value), RecordKind::kControl, kNewsChannel);
}

void OpenExecution::stalled(Stream stream) {
  const auto news = [stream](Napi::Object& object) {
    object.Set("kind", "stalled");
    object.Set("lane", number(object.Env(), stream == Stream::kStderr ? kStderr : kStdout));
  };
  mailbox_.put(news, RecordKind::kControl, kNewsChannel);
}

void OpenExecution::exited(const protocol::Exited& exited) {
  const auto news = [exited](Napi::Object& object) {
    const Napi::Env env = object.Env();
    object.Set("kind", "exit");
    object.Set(exited.signaled ? "signal" : "exitCode", number(env, exited.code));
    object.Set("timedOut", Napi::Boolean::New(env, exited.timed_out));
    object.Set("forced", Napi::Boolean::New(env, exited.forced));
    object.Set("startedAt", number(env, static_cast<double>(exited.started_at_ms)));
    object.Set("durationMs", number(env, static_cast<double>(exited.duration_us) / 1000));
    object.Set("userMs", number(env, static_cast<double>(exited.user_us) / 1000));
    object.Set("systemMs", number(env, static_cast<double>(exited.system_us) / 1000));
    object.Set("maxRssBytes", number(env, static_cast<double>(exited.max_rss_bytes)));
    object.Set("ownStdout", number(env, static_cast<double>(exited.own_stdout)));
    object.Set("ownStderr", number(env, static_cast<double>(exited.own_stderr)));
  };
  mailbox_.put(news, RecordKind::kTerminal, kTerminalChannel);
}

void OpenExecution::lost(const Error& why) {
  const auto news = [why](Napi::Object& object) {
    object.Set("kind", "lost");
    object.Set("error", from_error(object.Env(), why));
  };
  mailbox_.put(news, RecordKind::kTerminal, kTerminalChannel);
}

}  // namespace sluicebox::addon

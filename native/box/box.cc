#include "box/box.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "box/keeper_process.h"
#include "protocol/packet_socket.h"

namespace sluicebox::box {

namespace {

using protocol::Type;

// What a keeper may take beyond the grace to end its box before it is itself given up.
constexpr std::chrono::seconds kKeeperPatience{10};
// PID 1 follows a keeper that was killed; it is not waited for longer than this.
constexpr std::chrono::seconds kOrphanPatience{2};
// From the end of the grace until a machine that was told to is off: its agent kills, syncs and unmounts.
constexpr std::chrono::seconds kPowerPatience{3};
// For walls that nothing runs in any more, and for the news of QEMU's end when its guest's agent is gone.
constexpr std::chrono::milliseconds kEmptyWalls{1000};
// For QEMU to write out its disks once its guest turned itself off.
constexpr std::chrono::minutes kDisksClosing{2};

std::int64_t now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

bool allowed(State from, State to) {
  switch (from) {
    case State::kCreated:
      return to == State::kStarting || to == State::kRunning || to == State::kRemoved;
    case State::kStarting:
      return to == State::kRunning || to == State::kFailed;
    case State::kRunning:
      return to == State::kPaused || to == State::kStopping || to == State::kFailed;
    case State::kPaused:
      return to == State::kRunning || to == State::kStopping || to == State::kFailed;
    case State::kStopping:
      return to == State::kStopped || to == State::kFailed;
    case State::kStopped:
    case State::kFailed:
      return to == State::kStarting || to == State::kRemoved;
    case State::kRemoved:
      return false;
  }
  return false;
}

}  // namespace

const char* state_name(State state) {
  switch (state) {
    case State::kCreated:
      return "created";
    case State::kStarting:
      return "starting";
    case State::kRunning:
      return "running";
    case State::kPaused:
      return "paused";
    case State::kStopping:
      return "stopping";
    case State::kStopped:
      return "stopped";
    case State::kFailed:
      return "failed";
    case State::kRemoved:
      return "removed";
  }
  return "unknown";
}

Box::Box(std::shared_ptr<Reactor> reactor, std::shared_ptr<Engine> engine, std::shared_ptr<const Home> home,
         BoxRecord record, State state)
    : reactor_(std::move(reactor)),
      engine_(std::move(engine)),
      home_(std::move(home)),
      record_(std::move(record)),
      state_(state) {}

Box::~Box() { abandon(); }

BoxRecord Box::record() const {
  MutexLock lock(mutex_);
  return record_;
}

Status Box::update(const std::function<void(BoxRecord&)>& change) {
  const MutexLock turn(record_turn_);
  BoxRecord updated = record();
  change(updated);
  TRY(home_->update(updated));
  MutexLock lock(mutex_);
  record_ = std::move(updated);
  return ok_status();
}

void Box::change(State state, StopReason reason, std::optional<Error> error, bool clean) {
  if (!allowed(state_, state)) std::abort();
  const StateChange told{.state = state,
                         .previous = std::exchange(state_, state),
                         .reason = reason,
                         .error = std::move(error),
                         .clean = clean};
  if (listener_) listener_->changed(told);
}

Error Box::wrong_state(const char* what) const {
  return {ErrorCode::kBoxState, std::string("the box is ") + state_name(state_) + ", so it cannot " + what};
}

void Box::unlisten() {
  // The listener's last owner may be this very box: it goes after the task.
  reactor_->post([self = shared_from_this()] { self->listener_.reset(); });
}

// ---------- start ----------
Status Box::begin_start() {
  const bool startable = state_ == State::kCreated || state_ == State::kStopped || state_ == State::kFailed;
  if (!startable || (state_ != State::kCreated && !record().spec.keep)) return wrong_state("start");
  change(State::kStarting);
  return ok_status();
}

Result<LaunchedBox> Box::launch_on_worker(std::optional<Home::Held> held, const Origin& origin,
                                          const CancelToken& cancel, Clock::time_point deadline) const {
  // After whoever changes the box's layers: what the record says then is so as long as the lock is held.
  if (!held) {
    const MutexLock turn(layers_turn_);
    held = TRY(home_->hold(this->record().id));
  }
  const BoxRecord record = this->record();
  LaunchedBox launched = TRY(engine_->launch(record, std::move(*held), origin, cancel, deadline));
  if (record.spec.keep && launched.first_uid != record.first_uid) {
    BoxRecord updated = record;
    updated.first_uid = launched.first_uid;
    TRY(home_->update(updated));
  }
  return launched;
}

Status Box::finish_start(Result<LaunchedBox> launched) {
  const auto fail = [this](Error error) {
    change(State::kFailed, StopReason::kRequested, error);
    return error;
  };
  if (!launched.ok()) return fail(std::move(launched).error());
  is_ours_ = true;
  started_at_ms_ = now_ms();
  if (Status taken = take(std::move(launched).value()); !taken.ok()) return fail(std::move(taken).error());
  change(State::kRunning);
  return ok_status();
}

Status Box::join(RunningBox running) {
  is_ours_ = running.is_ours;
  started_at_ms_ = running.started_at_ms;
  TRY(take(std::move(running.box)));
  change(State::kRunning);
  return ok_status();
}

Status Box::take(LaunchedBox launched) {
  process_ = std::move(launched.process);
  control_ = std::move(launched.control);
  warnings_ = std::move(launched.warnings);
  {
    MutexLock lock(mutex_);
    record_.first_uid = launched.first_uid;
  }
  session_ = std::make_unique<Session>(*reactor_, std::move(launched.session),
                                       [this](Error why, Session::End end) { session_lost(std::move(why), end); });
  machine_ = std::move(launched.machine);
  reason_ = StopReason::kRequested;
  Status watched = session_->start();
  if (watched.ok() && machine_)
    watched = machine_->attach(*reactor_, [this](Machine::End end) { machine_ended(std::move(end)); });
  if (watched.ok()) watched = reactor_->watch(control_.get(), EPOLLIN, &control_ear_);
  if (watched.ok()) watched = reactor_->watch(process_.get(), EPOLLIN, &process_ear_);
  if (!watched.ok()) abandon();
  return watched;
}

// ---------- work ----------
Result<std::shared_ptr<Execution>> Box::execute(ExecutionOptions options, std::shared_ptr<ExecutionListener> listener,
                                                Execution::Spawned spawned) {
  if (state_ != State::kRunning) return wrong_state("run programs");
  if (why_) return Error(*why_);
  if (leaving_) return Error(ErrorCode::kBoxState, "the box is being left, so it cannot run programs");
  // Nothing but frames crosses a machine's port.
  options.framed = options.framed || machine_ != nullptr;
  auto execution = std::make_shared<Execution>(*reactor_, *session_, std::move(options), std::move(listener));
  execution->spawn(std::move(spawned));
  return execution;
}

// ---------- pause ----------
void Box::pause(std::uint32_t request) { turn_processors(request, State::kRunning, State::kPaused, "stop", "pause"); }
void Box::resume(std::uint32_t request) { turn_processors(request, State::kPaused, State::kRunning, "cont", "resume"); }

void Box::turn_processors(std::uint32_t request, State from, State to, const char* command, const char* what) {
  const auto answer = [self = shared_from_this(), request](Status done) {
    if (self->listener_) self->listener_->answered(request, std::move(done));
  };
  if (state_ != from) return answer(state_ == to ? ok_status() : Status(wrong_state(what)));
  if (machine_ && to == State::kPaused && machine_->is_moving())
    return answer(Error(ErrorCode::kInUse, "a snapshot of the box is being taken, or its disk is being moved"));
  if (!machine_) {
    return answer(Error(ErrorCode::kUnsupported, "only a virtual machine can be paused")
                      .advise("Create the box with isolation: 'vm'."));
  }
  machine_->qmp().execute(command, nlohmann::json::object(),
                          [this, answer, from, to](const Result<nlohmann::json>& done) {
                            if (!done.ok()) return answer(done.error());
                            if (state_ == from) {
                              // A guest that stands still cannot answer.
                              session_->rest(to == State::kPaused);
                              change(to);
                            }
                            answer(ok_status());
                          });
}

Machine* Box::machine_there() const { return machine_.get(); }

void Box::freeze(bool file_systems, const std::function<void(Status)>& done) {
  if (machine() == nullptr) return done(wrong_state("be looked at as it runs"));
  session_->freeze(file_systems, done);
}

void Box::thaw() {
  if (session_) session_->thaw();
}

// ---------- another owner ----------
// The agent ends the executions and falls silent; then QEMU's keeper is not heard any more; then the keeper has it all.
void Box::leave(std::uint32_t request) {
  const auto refuse = [&](Error why) {
    if (request == 0) return unlisten();
    if (listener_) listener_->answered(request, std::move(why));
  };
  if (state_ != State::kRunning || why_ || leaving_) return refuse(wrong_state("be left to run on"));
  if (!is_ours_) return refuse(Error(ErrorCode::kBoxState, "another process owns the box"));
  if (machine_ && !machine_->is_idle())
    return refuse(Error(ErrorCode::kInUse, "a snapshot of the box is being taken, or its disk is being moved"));
  leaving_ = request;
  session_->part(Error(ErrorCode::kBoxLost, "the box was left to run on by itself"),
                 [self = shared_from_this()](Result<protocol::FrameLink> agent) {
                   agent.ok() ? self->leave_machine(std::move(agent).value()) : self->cannot_leave(agent.error());
                 });
}

void Box::leave_machine(protocol::FrameLink agent) {
  if (!machine_) return give_to_keeper({.agent = std::move(agent), .machine = std::nullopt, .chains = {}});
  const auto link = std::make_shared<protocol::FrameLink>(std::move(agent));
  machine_->release([self = shared_from_this(), link, chains = machine_->chains()](Result<MachineParts> parts) {
    if (!parts.ok()) return self->cannot_leave(parts.error());
    self->give_to_keeper({.agent = std::move(*link), .machine = std::move(parts).value(), .chains = chains});
  });
}

// It answers, and left() follows.
void Box::give_to_keeper(Estate estate) {
  if (!control_.valid()) return;  // it has ended meanwhile, and that was told
  const Bequest bequest = bequeath(std::move(estate));
  std::vector<int> descriptors;
  descriptors.reserve(bequest.descriptors.size());
  for (const UniqueFd& fd : bequest.descriptors) descriptors.push_back(fd.get());
  const Status given =
      protocol::send_frame(control_.get(), {.type = Type::kLeave}, protocol::encode(bequest.message), descriptors);
  if (!given.ok()) cannot_leave(given.error());
}

// Half of it is handed over by now.
void Box::cannot_leave(const Error& why) {
  if (!control_.valid()) return;
  if (!why_) why_ = why;
  stop_keeper(std::chrono::milliseconds(0));
}

void Box::left() {
  const auto self = shared_from_this();
  reactor_->unwatch(process_.get());
  forget_keeper(std::move(process_));
  let_go();
  answer_leave(ok_status());
}

void Box::answer_leave(Status done) {
  const auto request = std::exchange(leaving_, std::nullopt);
  if (!request) return;
  if (*request == 0) return unlisten();
  if (listener_) listener_->answered(*request, std::move(done));
}

// ---------- end ----------
void Box::stop(std::uint32_t request, std::chrono::milliseconds grace) {
  if (state_ == State::kPaused) {
    // It can only turn itself off when it runs. Commands to QEMU keep their order.
    machine_->qmp().execute("cont", nlohmann::json::object(), [](const Result<nlohmann::json>&) {});
    session_->rest(false);
  }
  if (state_ != State::kRunning && state_ != State::kPaused && state_ != State::kStopping) {
    if (request != 0 && listener_)
      listener_->stopped(request, state_ == State::kStarting ? Result<StopReason>(wrong_state("stop"))
                                                             : Result<StopReason>(StopReason::kRequested));
    return;
  }
  if (request != 0) stops_.push_back(request);
  // A box that is lost fails, whoever asks it to stop meanwhile.
  if (state_ != State::kStopping && !why_) change(State::kStopping);
  if (machine_ && grace.count() > 0) return turn_off(grace);
  if (machine_) reason_ = StopReason::kKilled;
  stop_keeper(grace);
}

void Box::stop_keeper(std::chrono::milliseconds grace) {
  asked_ = true;
  const auto message = protocol::encode(protocol::Stop{.grace_ms = static_cast<std::uint64_t>(grace.count())});
  // A keeper that takes no more has as much said already; its patience below is what counts.
  [[maybe_unused]] const Status sent = protocol::send_frame(control_.get(), {.type = Type::kStop}, message);
  be_patient(grace + kKeeperPatience);
}

// A machine syncs its disks before it goes; its walls have nothing to hold then.
void Box::turn_off(std::chrono::milliseconds grace) {
  const auto message = protocol::encode(protocol::Stop{.grace_ms = static_cast<std::uint64_t>(grace.count())});
  session_->send(Type::kShutdown, 0, 0, message);
  const Clock::time_point moment = Clock::now() + grace + kPowerPatience;
  if (power_ && power_->first <= moment) return;
  if (power_) reactor_->cancel(*power_);
  power_ = reactor_->at(moment, [this] {
    power_.reset();
    reason_ = StopReason::kKilled;
    stop_keeper(std::chrono::milliseconds(0));
  });
}

void Box::machine_ended(Machine::End end) {
  reactor_->post([self = shared_from_this(), end = std::move(end)] {
    Box& box = *self;
    if (!box.machine_) return;
    if (box.power_) box.reactor_->cancel(*box.power_);
    box.power_.reset();
    const bool expected = box.state_ == State::kStopping;
    if (!expected && end.guest_shutdown) {
      box.why_.reset();
      box.reason_ = StopReason::kGuestShutdown;
      box.change(State::kStopping);
    } else if (!expected) {
      box.why_ = Error(ErrorCode::kBoxLost, end.why);
      box.why_->output = box.machine_->tail();
    }
    // Without a keeper there is nothing more to wait for.
    box.process_.valid() ? box.stop_keeper(kEmptyWalls) : box.end();
  });
}

// The agent ended or broke its word. The keeper notices the first by itself, and is told of the second.
void Box::session_lost(Error why, Session::End end) {
  if (!why_) why_ = std::move(why);
  reactor_->post([self = shared_from_this(), end] {
    // Its keeper was told already, and this is how a stop goes; to hasten it would call it forced.
    if (self->state_ == State::kStopping && self->process_.valid()) return;
    if (!self->process_.valid()) return self->end();
    // QEMU's end is the better answer, and so is the keeper's: another process may have stopped the box.
    if (self->machine_ || end == Session::End::kHungUp)
      self->await_end();
    else
      self->end_here();
  });
}

void Box::await_end() {
  if (power_) return;
  const std::chrono::milliseconds patience = machine_ && machine_->is_off() ? kDisksClosing : kEmptyWalls;
  power_ = reactor_->at(Clock::now() + patience, [this] {
    power_.reset();
    process_.valid() ? end_here() : end();
  });
}

// A session that somebody else's box dropped is no reason to end the box.
void Box::end_here() { is_ours_ ? stop(0, std::chrono::milliseconds(0)) : end(); }

void Box::hear_keeper() {
  std::array<std::byte, protocol::kMaxPayload> buffer;
  const auto frame = protocol::receive_frame(control_.get(), buffer);
  if (!frame.ok() && frame.error().os_error == EAGAIN) return;
  if (frame.ok() && frame.value().header.type == Type::kEnded) {
    auto ended = protocol::decode_ended(Bytes(buffer).first(frame.value().length));
    if (ended.ok()) ended_ = std::move(ended).value();
  }
  if (frame.ok() && frame.value().header.type == Type::kLeft && leaving_) return left();
  // It says nothing more; its end is told by its other descriptor.
  if (!frame.ok()) reactor_->unwatch(control_.get());
}

void Box::keeper_ended() {
  const auto self = shared_from_this();
  hear_keeper();
  reactor_->unwatch(process_.get());
  ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(process_.get()), nullptr, WEXITED | WNOHANG | __WALL);
  process_.reset();
  if (ended_ || why_) return end();
  // Killed: its box ends because of that, a moment later.
  why_ = Error(ErrorCode::kBoxLost, "the box's keeper was killed");
  be_patient(kOrphanPatience);
}

// Nothing of the box runs any more, or nothing of it answers.
void Box::end() {
  if (state_ != State::kRunning && state_ != State::kPaused && state_ != State::kStopping) return;
  const auto self = shared_from_this();
  // By another process.
  if (ended_ && ended_->asked && !asked_ && state_ != State::kStopping) {
    why_.reset();
    change(State::kStopping);
  }
  const Error why = why_.value_or(Error(ErrorCode::kBoxLost, "the box's first process was killed"));
  const bool orderly = state_ == State::kStopping && ended_ && ended_->asked;
  const bool killed = !ended_ || (ended_->forced && !machine_);
  const StopReason reason = killed ? StopReason::kKilled : reason_;
  const bool clean = ended_ && ended_->leftovers.empty();
  if (session_) session_->finish(why);
  let_go();
  if (orderly)
    change(State::kStopped, reason, std::nullopt, clean);
  else
    change(State::kFailed, reason, why);
  answer_leave(why);
  for (const std::uint32_t request : std::exchange(stops_, {})) {
    if (listener_) listener_->stopped(request, orderly ? Result<StopReason>(reason) : Result<StopReason>(why));
  }
}

void Box::abandon() {
  if (session_) session_->finish(Error(ErrorCode::kBoxLost, "the runtime was closed"));
  let_go();
}

// Our hang-up ends whatever is left of the box.
void Box::let_go() {
  if (patience_) reactor_->cancel(*patience_);
  patience_.reset();
  if (power_) reactor_->cancel(*power_);
  power_.reset();
  if (control_.valid()) reactor_->unwatch(control_.get());
  if (process_.valid()) reactor_->unwatch(process_.get());
  control_.reset();
  process_.reset();
  session_.reset();
  machine_.reset();
  ended_.reset();
  why_.reset();
  asked_ = false;
}

void Box::be_patient(std::chrono::milliseconds time) {
  if (patience_) reactor_->cancel(*patience_);
  patience_ = reactor_->at(Clock::now() + time, [this] {
    patience_.reset();
    if (!why_) why_ = Error(ErrorCode::kBoxLost, "the box's keeper does not answer");
    end();
  });
}

// ---------- removal ----------
Status Box::check_removable() const {
  if (state_ == State::kCreated || state_ == State::kStopped || state_ == State::kFailed) return ok_status();
  return wrong_state("be removed");
}

void Box::set_removed() {
  if (state_ != State::kRemoved) change(State::kRemoved);
}

}  // namespace sluicebox::box

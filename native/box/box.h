// box.h: one box of this process: its state, the keeper that holds it, the executions in it.
// Knows: engine, session, home. Does not know: queues, promises.
// Threads: launch_on_worker() on a worker; everything else, the listener's calls too, on the reactor's thread. Of the
// constants any thread may ask.
//
// Invariants:
// 1. States change as kAllowed in box.cc says, each change is told once, in order.
// 2. kRunning means that the agent has answered.
// 3. Every execution has its terminal event before kStopped or kFailed is told.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "box/engine.h"
#include "box/estate.h"
#include "box/execution.h"
#include "box/reactor.h"
#include "box/running_box.h"
#include "box/session.h"

namespace sluicebox::box {

enum class State : std::uint8_t { kCreated, kStarting, kRunning, kPaused, kStopping, kStopped, kFailed, kRemoved };
const char* state_name(State state);

// Why a box stopped: asked to; of itself, a machine that turned itself off; or the grace had run out, or none was
// given.
enum class StopReason : std::uint8_t { kRequested, kGuestShutdown, kKilled };

struct StateChange {
  State state{};
  State previous{};
  StopReason reason = StopReason::kRequested;  // kStopped
  std::optional<Error> error;                  // kFailed
  bool clean = false;                          // kStopped: the keeper said that nothing is left of what is not kept
};

class BoxListener {
 public:
  virtual ~BoxListener() = default;
  virtual void changed(const StateChange& change) = 0;
  // A stop's answer.
  virtual void stopped(std::uint32_t request, Result<StopReason> reason) = 0;
  // A pause's, or a resume's.
  virtual void answered(std::uint32_t request, Status done) = 0;
};

// Whether this process has the box's lock (a box that was made and not started); asked under its layers_turn().
using IsHeld = std::function<bool()>;

class Box final : public std::enable_shared_from_this<Box> {
 public:
  using Started = std::function<void(Status status)>;

  // `state`: kStopped for one that was found as it stands, else kCreated.
  Box(std::shared_ptr<Reactor> reactor, std::shared_ptr<Engine> engine, std::shared_ptr<const Home> home,
      BoxRecord record, State state);
  ~Box();
  Box(const Box&) = delete;
  Box& operator=(const Box&) = delete;

  BoxRecord record() const EXCLUDES(mutex_);
  // What a worker changed of it: its disks' bases.
  Status update(const std::function<void(BoxRecord&)>& change) EXCLUDES(mutex_);
  const Home& home() const { return *home_; }
  Engine& engine() const { return *engine_; }
  // Held by the worker that takes, restores, copies or removes a snapshot: one at a time.
  Mutex& layers_turn() const { return layers_turn_; }
  // Hears of every change from now on.
  void listen(std::shared_ptr<BoxListener> listener) { listener_ = std::move(listener); }
  // From any thread: nobody hears of it from here on. A listener that owns the box is owned by it no more.
  void unlisten();
  State state() const { return state_; }

  // From kCreated, kStopped or kFailed (of a box that is kept); kBoxState otherwise.
  Status begin_start();
  // What may wait, on a worker: builds the walls. Its result goes to finish_start().
  Result<LaunchedBox> launch_on_worker(std::optional<Home::Held> held, const Origin& origin, const CancelToken& cancel,
                                       Clock::time_point deadline) const;
  Status finish_start(Result<LaunchedBox> launched);
  // The same of one that runs already: from kCreated to kRunning.
  Status join(RunningBox running);

  // kBoxState when the box is not running.
  Result<std::shared_ptr<Execution>> execute(ExecutionOptions options, std::shared_ptr<ExecutionListener> listener,
                                             Execution::Spawned spawned);
  // A running machine's QEMU; null: there is none.
  Machine* machine() const { return state_ == State::kRunning && !why_ && !leaving_ ? machine_.get() : nullptr; }
  // The same of one that is paused or stopping as well: to finish what was begun.
  Machine* machine_there() const;
  // The guest's processors stand still, and go on. kUnsupported where there is no machine.
  void pause(std::uint32_t request);
  void resume(std::uint32_t request);
  // Of a running machine: see Session.
  void freeze(bool file_systems, const std::function<void(Status)>& done);
  void thaw();
  // Answered when the box runs on without us: nothing more is heard of it here, and its executions are gone. kInUse
  // while something is done to it, kBoxState when it does not run, or is not ours.
  // 0: nobody waits, and nobody is told anything more.
  void leave(std::uint32_t request);
  // Answered when nothing of the box runs any more.
  void stop(std::uint32_t request, std::chrono::milliseconds grace);
  // For the end of everything: hangs up, and the keeper kills what is left.
  void abandon();
  Status check_removable() const;
  void set_removed();

  std::vector<std::string> warnings() const { return warnings_; }
  std::int64_t started_at_ms() const { return started_at_ms_; }

 private:
  // Tells which of the keeper's two descriptors is meant.
  class Ear final : public Watcher {
   public:
    Ear(Box& box, void (Box::*heard)()) : box_(box), heard_(heard) {}
    void ready(std::uint32_t) override { (box_.*heard_)(); }

   private:
    Box& box_;
    void (Box::*heard_)();
  };
  void change(State state, StopReason reason = StopReason::kRequested, std::optional<Error> error = std::nullopt,
              bool clean = false);
  Error wrong_state(const char* what) const;
  Status take(LaunchedBox launched);
  void session_lost(Error why, Session::End end);
  void leave_machine(protocol::FrameLink agent);
  void give_to_keeper(Estate estate);
  void cannot_leave(const Error& why);
  void left();
  void answer_leave(Status done);
  void stop_keeper(std::chrono::milliseconds grace);
  void turn_off(std::chrono::milliseconds grace);
  void machine_ended(Machine::End end);
  void await_end();
  void end_here();
  void turn_processors(std::uint32_t request, State from, State to, const char* command, const char* what);
  void hear_keeper();
  void keeper_ended();
  void end();
  void let_go();
  void be_patient(std::chrono::milliseconds time);

  const std::shared_ptr<Reactor> reactor_;
  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<const Home> home_;
  mutable Mutex layers_turn_;
  Mutex record_turn_;
  mutable Mutex mutex_;
  BoxRecord record_ GUARDED_BY(mutex_);
  std::shared_ptr<BoxListener> listener_;
  State state_;
  std::vector<std::string> warnings_;
  std::int64_t started_at_ms_ = 0;

  UniqueFd process_;
  UniqueFd control_;
  Ear process_ear_{*this, &Box::keeper_ended};
  Ear control_ear_{*this, &Box::hear_keeper};
  std::optional<protocol::Ended> ended_;  // the keeper's last word
  std::unique_ptr<Session> session_;
  std::unique_ptr<Machine> machine_;            // a virtual machine's
  StopReason reason_ = StopReason::kRequested;  // of a machine: how it came to its end
  std::optional<Reactor::TimerId> power_;       // until a machine that is turned off must be off
  std::vector<std::uint32_t> stops_;            // who waits for the end
  std::optional<std::uint32_t> leaving_;        // who waits for the keeper to have it
  bool is_ours_ = true;                         // our hang-up ends it
  bool asked_ = false;                          // the keeper was told to stop, by us
  std::optional<Error> why_;                    // what broke first
  std::optional<Reactor::TimerId> patience_;
};

}  // namespace sluicebox::box

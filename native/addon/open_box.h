// open_box.h: one box as the queue has it: its state changes and answers, its reserved slots.
// Knows: box/, sources. Does not know: promises.
// Threads: as a listener the reactor's; the rest on the JavaScript thread unless said otherwise.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "addon/box_values.h"
#include "addon/mailbox.h"
#include "box/box.h"

namespace sluicebox::addon {

class OpenBox final : public box::BoxListener {
 public:
  // State changes and answers; the second slot is the console's.
  static constexpr event_queue::Share kShare{.channels = 2, .bytes = 0};

  explicit OpenBox(std::shared_ptr<event_queue::Source> source) : id_(source->id()), mailbox_(std::move(source)) {}

  event_queue::HandleId id() const { return id_; }
  Mailbox& mailbox() { return mailbox_; }

  // Set once, before anyone else knows of it.
  std::shared_ptr<box::Box> box;
  // Of a box that was made and not started. A worker's, under the box's layers_turn().
  std::optional<box::Home::Held> held;
  // What its next start goes on from. A worker's, one at a time.
  std::optional<box::MemoryImage> memory;
  // Where its first start may find a machine like it. With `held`.
  std::optional<std::string> templates;
  box::IsHeld is_held() const {
    return [this] { return held.has_value(); };
  }
  void let_go() {
    if (held) held->let_go();
    held.reset();
  }
  // What to do when a box that is not kept has ended: its leftovers go. Set with it; called on the reactor's thread.
  std::function<void(const box::StateChange&)> on_change;

  // With the box, before its first change.
  void begin(box::State state) { state_ = state; }

  BoxView view() const;
  // From any thread: what the last change said.
  box::State state() const { return state_.load(); }

  void changed(const box::StateChange& change) override;
  void stopped(std::uint32_t request, Result<box::StopReason> reason) override;
  void answered(std::uint32_t request, Status done) override;

 private:
  static constexpr std::uint32_t kNewsChannel = 0;

  const event_queue::HandleId id_;
  Mailbox mailbox_;
  std::atomic<box::State> state_{box::State::kCreated};
};

}  // namespace sluicebox::addon

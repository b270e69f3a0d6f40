#include "addon/box_ground.h"

#include "addon/box_payload.h"

namespace sluicebox::addon {

namespace {

class BoxTask final : public Task {
 public:
  BoxTask(std::shared_ptr<event_queue::Operation> operation, std::function<void()> work)
      : operation_(std::move(operation)), work_(std::move(work)) {}

  void run() override { work_(); }
  void failed() noexcept override { end(ErrorCode::kOutOfMemory, "the operation ran out of memory"); }
  void abandon() noexcept override { end(ErrorCode::kCancelled, "the operation had not begun"); }

 private:
  void end(ErrorCode code, const char* why) noexcept {
    // If there is no memory for that either, the operation's destructor says the last word.
    try {
      if (operation_) operation_->complete(std::make_unique<BoxPayload>(Error(code, why)));
    } catch (...) {  // NOLINT(bugprone-empty-catch)
    }
  }
  std::shared_ptr<event_queue::Operation> operation_;
  std::function<void()> work_;
};

}  // namespace

Result<std::shared_ptr<const box::Home>> BoxGround::home(const std::string& path) {
  MutexLock lock(mutex_);
  if (home_ != nullptr) return home_;
  auto home = std::make_shared<const box::Home>(TRY(box::Home::open(path)));
  TRY(home->recover());
  home_ = home;
  return home_;
}

void BoxGround::on_worker(std::shared_ptr<event_queue::Operation> operation, std::function<void()> work) const {
  pool.submit(std::make_unique<BoxTask>(std::move(operation), std::move(work)));
}

void BoxGround::on_worker(std::function<void()> work) const { on_worker(nullptr, std::move(work)); }

}  // namespace sluicebox::addon

// machine_calls.h: what a worker asks a running machine, and waits for: the reactor's thread has it.
// Knows: boxes, QMP, the reactor. Does not know: what for.
// Threads: a worker's.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "box/box.h"

namespace sluicebox::box {

// QEMU answers within milliseconds; one that does not is stuck, and its box is about to be found lost.
inline constexpr std::chrono::seconds kReactorPatience{30};

// Runs on the reactor's thread; its answer comes back here.
template <typename T>
Result<T> ask(Reactor& reactor, const std::function<void(std::function<void(Result<T>)>)>& question) {
  const auto promise = std::make_shared<std::promise<Result<T>>>();
  auto future = promise->get_future();
  const bool posted = reactor.post(
      [promise, question] { question([promise](Result<T> answer) { promise->set_value(std::move(answer)); }); });
  if (!posted) return Error(ErrorCode::kClosed, "the runtime is closed");
  if (future.wait_for(kReactorPatience) != std::future_status::ready)
    return Error(ErrorCode::kBoxLost, "the box's QEMU does not answer");
  return future.get();
}

// A command to the machine's QEMU, and its answer.
using QmpCall = std::function<Result<nlohmann::json>(const std::string& command, const nlohmann::json& arguments,
                                                     std::vector<UniqueFd> passed)>;
QmpCall calls_to(const std::shared_ptr<Box>& box, Reactor& reactor);

std::vector<UniqueFd> one(UniqueFd fd);
// Puts the descriptor into a new set of QEMU's; the set's number.
Result<std::uint64_t> add_to_set(const QmpCall& call, UniqueFd fd);

}  // namespace sluicebox::box

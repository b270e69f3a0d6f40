#include "box/machine_calls.h"

#include <nlohmann/json.hpp>

namespace sluicebox::box {

using nlohmann::json;

QmpCall calls_to(const std::shared_ptr<Box>& box, Reactor& reactor) {
  return [box, &reactor](const std::string& command, const json& arguments, std::vector<UniqueFd> passed) {
    const auto descriptors = std::make_shared<std::vector<UniqueFd>>(std::move(passed));
    return ask<json>(reactor, [box, command, arguments, descriptors](std::function<void(Result<json>)> answer) {
      Machine* machine = box->machine_there();
      if (machine == nullptr) return answer(Error(ErrorCode::kBoxLost, "the box ended meanwhile"));
      machine->qmp().execute(command, arguments, std::move(answer), std::move(*descriptors));
    });
  };
}

std::vector<UniqueFd> one(UniqueFd fd) {
  std::vector<UniqueFd> list;
  list.push_back(std::move(fd));
  return list;
}

Result<std::uint64_t> add_to_set(const QmpCall& call, UniqueFd fd) {
  const json added = TRY(call("add-fd", json::object(), one(std::move(fd))));
  const auto number = added.find("fdset-id");
  if (number == added.end() || !number->is_number_unsigned()) return Error(ErrorCode::kIo, "QEMU took no descriptor");
  return number->get<std::uint64_t>();
}

}  // namespace sluicebox::box

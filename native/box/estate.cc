#include "box/estate.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace sluicebox::box {

namespace {

using nlohmann::json;
using protocol::Left;

constexpr std::size_t kOfNamespaces = 1;  // the agent
constexpr std::size_t kOfMachine = 5;     // the agent, the namespaces around QEMU, QMP, its console, its messages

json to_json(const Machine::Chains& chains) {
  json list = json::array();
  for (const auto& [disk, chain] : chains)
    list.push_back({{"disk", disk}, {"tried", chain.tried}, {"active", chain.active}, {"below", chain.below}});
  return list;
}

Machine::Chains chains_of(const json& list) {
  Machine::Chains chains;
  for (const json& each : list) {
    Machine::Chain& chain = chains[each.at("disk").get<std::size_t>()];
    chain.tried = each.at("tried").get<unsigned>();
    chain.active = each.at("active").get<std::string>();
    chain.below = each.at("below").get<std::vector<std::string>>();
  }
  return chains;
}

}  // namespace

Bequest bequeath(Estate estate) {
  Bequest bequest;
  const auto add = [&bequest](UniqueFd fd, Left use) {
    bequest.descriptors.push_back(std::move(fd));
    bequest.message.descriptors.push_back(use);
  };
  bequest.message.state = json{{"chains", to_json(estate.chains)}}.dump();
  add(estate.agent.release(), Left::kHold);
  if (!estate.machine) return bequest;
  // All that is said there is that QEMU has ended.
  add(estate.machine->walls.release(), Left::kLast);
  add(std::move(estate.machine->qmp), Left::kHold);
  add(estate.machine->console.release(), Left::kDrain);
  add(estate.machine->messages.release(), Left::kDrain);
  return bequest;
}

Result<Estate> inherit(const protocol::Given& given, std::vector<UniqueFd> descriptors) {
  const auto unknown = [] { return Error(ErrorCode::kIo, "what was left of the box is not what an owner leaves"); };
  const json state = json::parse(given.state, nullptr, false);
  if (!state.is_object() || (descriptors.size() != kOfNamespaces && descriptors.size() != kOfMachine)) return unknown();
  const bool is_machine = descriptors.size() == kOfMachine;
  using Kind = protocol::FrameLink::Kind;
  Estate estate;
  estate.agent = protocol::FrameLink(std::move(descriptors[0]), is_machine ? Kind::kStream : Kind::kPackets);
  if (!is_machine) return estate;
  estate.machine.emplace(MachineParts{.walls = protocol::FrameLink(std::move(descriptors[1]), Kind::kPackets),
                                      .qmp = std::move(descriptors[2]),
                                      .console = Console(std::move(descriptors[3])),
                                      .messages = Console(std::move(descriptors[4]))});
  try {
    estate.chains = chains_of(state.at("chains"));
  } catch (const json::exception&) {
    return unknown();
  }
  return estate;
}

}  // namespace sluicebox::box

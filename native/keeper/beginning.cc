#include "keeper/beginning.h"

#include "protocol/packet_socket.h"

namespace sluicebox::keeper {

Result<Beginning> begin(FirstProcess plan, walls::IdRange ids) {
  auto [link, agent_link] = TRY(protocol::packet_pair());
  auto [setup, inner_setup] = TRY(protocol::packet_pair());
  Beginning made;
  made.first = TRY(walls::clone_into_namespaces());
  if (made.first.pid == 0) {
    plan.range = ids.first != 0;
    plan.setup = inner_setup.get();
    plan.link = agent_link.get();
    become_first_process(std::move(plan));
  }
  made.ids = std::move(ids);
  made.link = std::move(link);
  made.setup = std::move(setup);
  const Status mapped = walls::write_id_maps(made.first.pid, made.ids.first);
  if (mapped.ok()) return made;
  end(made);
  return mapped.error();
}

void end(Beginning& beginning) {
  if (!beginning.first.handle.valid()) return;
  walls::kill_process(beginning.first.handle.get());
  walls::reap(beginning.first.handle.get());
  beginning.first.handle.reset();
}

}  // namespace sluicebox::keeper

// box_operations.h: what each operation on boxes does, off the JavaScript thread.
// Knows: box/, the ground they stand on. Does not know: how values cross.
// Threads: as said at each.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "addon/box_ground.h"
#include "addon/box_values.h"
#include "addon/open_box.h"

namespace sluicebox::addon {

// Of a box that runs: whose hang-up ends it. One that was adopted is left again by whoever lets it go.
enum class Ownership : std::uint8_t { kOurs, kAdopted, kShared };

// A box that was made, or found.
struct MadeBox {
  std::shared_ptr<OpenBox> open;
  box::BoxRecord record;
  bool running = false;  // it did when it was found
  bool reused = false;
  Ownership ownership = Ownership::kOurs;
};

struct CreateRequest {
  std::string home;
  box::BoxSpec spec;
  IfExists if_exists = IfExists::kError;
  bool start = true;
  std::chrono::milliseconds boot_timeout{0};
  // Of a clone: the box it is to be a copy of, as it was then. `spec` says in what it differs: its name, whether it is
  // kept, its config.
  struct From {
    std::shared_ptr<box::Box> source;
    std::string snapshot;  // its name or id
    std::optional<bool> memory;
  };
  std::optional<From> from = std::nullopt;
  // The same of a snapshot that is named: by its id, or as BOX/SNAPSHOT.
  struct Named {
    std::string snapshot;
    std::optional<bool> memory;
  };
  std::optional<Named> named = std::nullopt;
  // Where machines are kept that have just booted; nothing: they all boot.
  std::optional<std::string> templates = std::nullopt;
};
using MadeCallback = std::function<void(Result<MadeBox>)>;

// On a worker. `done` is called there or on the reactor's thread, once. A box that fails to start leaves nothing.
void create_box(const std::shared_ptr<BoxGround>& ground, const CreateRequest& request, std::shared_ptr<OpenBox> open,
                event_queue::Operation& operation, const MadeCallback& done);
// On a worker; `done` as above. One that runs is adopted, where it was left, or used beside its owner.
void find_box(const std::shared_ptr<BoxGround>& ground, const std::string& home, const std::string& id_or_name,
              const std::shared_ptr<OpenBox>& open, const CancelToken& cancel, const MadeCallback& done);
// From any thread. `done` on the reactor's.
void start_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open,
               const std::shared_ptr<event_queue::Operation>& operation, std::chrono::milliseconds boot_timeout,
               const std::function<void(Status)>& done);
// On a worker: the disks of a box that stands, and its memory where the snapshot has one, are what they were then.
// `check_only`: whether they could be.
Status restore_box(const BoxGround& ground, OpenBox& open, const std::string& snapshot, bool check_only);
// From any thread. `done` on the reactor's, or on a worker.
void remove_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open,
                const std::shared_ptr<event_queue::Operation>& operation, const std::function<void(Status)>& done);
// From any thread: nothing of it remains, and nobody is told.
void destroy_box(const std::shared_ptr<BoxGround>& ground, const std::shared_ptr<OpenBox>& open);

}  // namespace sluicebox::addon

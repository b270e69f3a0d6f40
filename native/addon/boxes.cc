#include "addon/boxes.h"

#include <dlfcn.h>

#include <algorithm>
#include <utility>

#include "addon/box_operations.h"
#include "addon/box_payload.h"
#include "addon/box_values.h"
#include "addon/image_work.h"
#include "addon/values.h"
#include "box/engines.h"
#include "box/kvm.h"
#include "box/rebase_box.h"
#include "box/resize_box.h"

namespace sluicebox::addon {

namespace {

using event_queue::HandleId;

// What one read hands to JavaScript at most.
constexpr std::size_t kMaxRead = std::size_t{1} << 20;

std::uint64_t key_of(HandleId id) { return (std::uint64_t{id.generation} << 32) | id.slot; }

// The directory that this addon was loaded from: its programs lie beside it.
std::string own_directory() {
  Dl_info info{};
  static const char anchor = 0;
  if (::dladdr(&anchor, &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  return path.substr(0, path.find_last_of('/'));
}

std::chrono::milliseconds millis_of(const Napi::Object& request, const char* key) {
  return std::chrono::milliseconds(std::min<std::uint64_t>(whole_of(request, key), 1ULL << 40));
}

std::unique_ptr<BoxPayload> failure(Error error) { return std::make_unique<BoxPayload>(std::move(error)); }

}  // namespace

// ---------- operations ----------
HandleId Boxes::submit(Napi::Env env, const std::string& op, const Napi::Object& request, bool wants_progress) {
  if (op == "box.create") return create(env, request, wants_progress);
  if (op == "box.open") return open(env, request);
  if (op == "box.list") return list(env, request);
  if (op == "box.means") return means(env);
  if (op == "box.start") return start(env, request);
  if (op == "box.remove") return remove(env, request);
  if (op == "box.configure") return configure(env, request);
  if (op == "box.rebase") return rebase(env, request, wants_progress);
  if (op == "box.resize") return resize(env, request);
  if (op == "box.clone") return clone(env, request, wants_progress);
  if (op == "box.snapshot") return snapshot(env, request, wants_progress);
  if (op == "box.snapshots") return list_snapshots(env, request);
  if (op == "box.dropSnapshot") return drop_snapshot(env, request);
  if (op == "box.restore") return restore(env, request);
  if (op == "exec") return execute(env, request);
  throw Napi::TypeError::New(env, "op: there is no operation '" + op + "'");
}

Result<std::shared_ptr<BoxGround>> Boxes::ground() {
  if (ended_) return Error(ErrorCode::kClosed, "the runtime is closed");
  if (ground_ == nullptr) {
    ground_ = std::make_shared<BoxGround>(TRY(box::Reactor::start()),
                                          std::make_shared<box::Engines>(own_directory(), policy_), pool_, policy_);
  }
  return ground_;
}

Boxes::Operation Boxes::open_operation(Napi::Env env, bool wants_progress) {
  auto operation = event_queue::Operation::open(
      *queue_, wants_progress ? event_queue::Operation::Progress::kYes : event_queue::Operation::Progress::kNo);
  if (!operation.ok()) throw throwable(env, operation.error());
  return std::move(operation).value();
}

std::shared_ptr<OpenBox> Boxes::reserve_box(Napi::Env env) {
  auto source = queue_->reserve(OpenBox::kShare);
  if (!source.ok()) throw throwable(env, source.error());
  return std::make_shared<OpenBox>(std::move(source).value());
}

static const char* name_of(Ownership ownership) {
  switch (ownership) {
    case Ownership::kOurs:
      return "ours";
    case Ownership::kAdopted:
      return "adopted";
    case Ownership::kShared:
      return "shared";
  }
  return "unknown";
}

// Hands `made` to JavaScript: as the box that is open here already, or as a new handle.
static Napi::Value hand_over(Napi::Env env, Boxes& boxes, const MadeBox& made) {
  std::shared_ptr<OpenBox> open = boxes.find(made.record.id);
  if (open == nullptr) boxes.adopt(open = made.open);
  Napi::Object value = Napi::Object::New(env);
  value.Set("handle", from_handle(env, open->id()));
  value.Set("reused", Napi::Boolean::New(env, made.reused));
  value.Set("running", Napi::Boolean::New(env, made.running));
  value.Set("ownership", name_of(made.ownership));
  value.Set("record", to_js(env, open->view()));
  return value;
}

// A reservation that came to nothing: its handle and its slots go back.
static void give_back(event_queue::Queue& queue, OpenBox& open) {
  open.mailbox().shut();
  [[maybe_unused]] const auto claim = queue.claim(open.id());
}

// The same for one that no destroy_box() will hear the end of.
static void drop(event_queue::Queue& queue, OpenBox& open) {
  give_back(queue, open);
  if (open.box) open.box->unlisten();
}

// The same for one that was there before: adopted for nobody, it is left again.
static void drop_found(event_queue::Queue& queue, const std::shared_ptr<BoxGround>& ground, const MadeBox& made) {
  if (made.ownership != Ownership::kAdopted) return drop(queue, *made.open);
  ground->reactor->post([open = made.open] { open->box->leave(0); });
  give_back(queue, *made.open);
}

static std::optional<CreateRequest::Named> named_snapshot_of(const Napi::Object& request) {
  const auto rootfs = request.Get("rootfs").As<Napi::Object>();
  if (text_of(rootfs, "kind") != "snapshot") return std::nullopt;
  CreateRequest::Named named{.snapshot = text_of(rootfs, "snapshot"), .memory = std::nullopt};
  if (!rootfs.Get("memory").IsUndefined()) named.memory = flag_of(rootfs, "memory");
  return named;
}

HandleId Boxes::create(Napi::Env env, const Napi::Object& request, bool wants_progress) {
  return create(env,
                {.home = text_of(request, "home"),
                 .spec = spec_of(request),
                 .if_exists = if_exists_of(request),
                 .start = flag_of(request, "start"),
                 .boot_timeout = millis_of(request, "bootTimeoutMs"),
                 .named = named_snapshot_of(request),
                 .templates = optional_text_of(request, "templates")},
                wants_progress);
}

HandleId Boxes::create(Napi::Env env, const CreateRequest& wanted, bool wants_progress) {
  auto ground = this->ground();
  if (!ground.ok()) throw throwable(env, ground.error());
  auto open = reserve_box(env);
  Operation operation;
  try {
    operation = open_operation(env, wants_progress);
  } catch (...) {
    give_back(*queue_, *open);
    throw;
  }
  const auto done = [operation, open, ground = *ground, queue = queue_, self = weak_from_this()](Result<MadeBox> made) {
    if (!made.ok()) {
      drop(*queue, *open);
      return operation->complete(failure(std::move(made).error()));
    }
    if (!operation->cancel().try_commit()) {
      if (!made->reused) destroy_box(ground, open);
      made->reused ? drop_found(*queue, ground, *made) : give_back(*queue, *open);
      return operation->complete(failure(Error(ErrorCode::kCancelled, "the operation was cancelled")));
    }
    auto value = [self, made = *made, ground, queue](Napi::Env at) -> Result<Napi::Value> {
      const auto boxes = self.lock();
      if (!boxes) return Error(ErrorCode::kClosed, "the runtime is closed");
      const Napi::Value handed = hand_over(at, *boxes, made);
      // It was opened twice at once: the other one stands.
      if (boxes->find(made.record.id) != made.open) drop_found(*queue, ground, made);
      return handed;
    };
    auto reclaim = [ground, queue, made = *made] {
      if (!made.reused) destroy_box(ground, made.open);
      made.reused ? drop_found(*queue, ground, made) : give_back(*queue, *made.open);
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value)), std::move(reclaim)));
  };
  (*ground)->on_worker(operation, [ground = *ground, wanted, open, operation, done] {
    create_box(ground, wanted, open, *operation, done);
  });
  return operation->id();
}

HandleId Boxes::open(Napi::Env env, const Napi::Object& request) {
  const std::string home = text_of(request, "home");
  const std::string id_or_name = text_of(request, "idOrName");
  auto ground = this->ground();
  if (!ground.ok()) throw throwable(env, ground.error());
  auto open = reserve_box(env);
  Operation operation;
  try {
    operation = open_operation(env, false);
  } catch (...) {
    give_back(*queue_, *open);
    throw;
  }
  const auto done = [operation, open, ground = *ground, queue = queue_, self = weak_from_this()](Result<MadeBox> made) {
    if (!made.ok()) {
      drop(*queue, *open);
      return operation->complete(failure(std::move(made).error()));
    }
    auto value = [self, made = *made, ground, queue](Napi::Env at) -> Result<Napi::Value> {
      const auto boxes = self.lock();
      if (!boxes) return Error(ErrorCode::kClosed, "the runtime is closed");
      const Napi::Value handed = hand_over(at, *boxes, made);
      if (boxes->find(made.record.id) != made.open) drop_found(*queue, ground, made);
      return handed;
    };
    auto reclaim = [queue, made = *made, ground] { drop_found(*queue, ground, made); };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value)), std::move(reclaim)));
  };
  (*ground)->on_worker(operation,
                       [=, ground = *ground] { find_box(ground, home, id_or_name, open, operation->cancel(), done); });
  return operation->id();
}

HandleId Boxes::list(Napi::Env env, const Napi::Object& request) {
  const std::string home = text_of(request, "home");
  auto ground = this->ground();
  if (!ground.ok()) throw throwable(env, ground.error());
  Operation operation = open_operation(env, false);
  (*ground)->on_worker(operation, [operation, home, ground = *ground, self = weak_from_this()] {
    auto opened = ground->home(home);
    if (!opened.ok()) return operation->complete(failure(std::move(opened).error()));
    auto entries = (*opened)->list(BoxGround::ignore_problem);
    if (!entries.ok()) return operation->complete(failure(std::move(entries).error()));
    const auto home_path = [opened = *opened](const std::string& id) { return opened->path_of(id); };
    auto value = [self, home_path, entries = *entries](Napi::Env at) -> Result<Napi::Value> {
      const auto boxes = self.lock();
      Napi::Array array = Napi::Array::New(at);
      for (const box::Home::Entry& entry : entries) {
        const auto open = boxes ? boxes->find(entry.record.id) : nullptr;
        const auto state = entry.running ? box::State::kRunning : box::State::kStopped;
        const BoxView view = open ? open->view()
                                  : BoxView{.record = entry.record,
                                            .state = state,
                                            .started_at_ms = 0,
                                            .warnings = {},
                                            .directory = home_path(entry.record.id)};
        if (view.state != box::State::kRemoved) array.Set(array.Length(), to_js(at, view));
      }
      return array.As<Napi::Value>();
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value))));
  });
  return operation->id();
}

HandleId Boxes::means(Napi::Env env) {
  auto ground = this->ground();
  if (!ground.ok()) throw throwable(env, ground.error());
  Operation operation = open_operation(env, false);
  (*ground)->on_worker(operation, [operation, ground = *ground] {
    auto value = [means = ground->engine->means(),
                  tried = ground->engine->try_out()](Napi::Env at) -> Result<Napi::Value> {
      Napi::Object object = Napi::Object::New(at);
      object.Set("qemu", means.qemu);
      object.Set("kernel", means.kernel);
      object.Set("noKvm", box::kvm_verdict().why);
      if (means.missing) object.Set("missing", from_error(at, *means.missing));
      if (means.no_host_root) object.Set("noHostRoot", from_error(at, *means.no_host_root));
      if (!tried.ok()) object.Set("noNamespaces", from_error(at, tried.error()));
      return object.As<Napi::Value>();
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value))));
  });
  return operation->id();
}

HandleId Boxes::start(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  const auto boot_timeout = millis_of(request, "bootTimeoutMs");
  Operation operation = open_operation(env, false);
  start_box(ground_, open, operation, boot_timeout, [operation, open](Status started) {
    if (!started.ok()) return operation->complete(failure(std::move(started).error()));
    // It was given up: the box goes back to where it was.
    if (!operation->cancel().try_commit()) {
      open->box->stop(0, std::chrono::milliseconds(0));
      return operation->complete(failure(Error(ErrorCode::kCancelled, "the operation was cancelled")));
    }
    auto value = [open](Napi::Env at) -> Result<Napi::Value> {
      Napi::Object object = Napi::Object::New(at);
      object.Set("record", to_js(at, open->view()));
      return object.As<Napi::Value>();
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value))));
  });
  return operation->id();
}

HandleId Boxes::remove(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  Operation operation = open_operation(env, false);
  remove_box(ground_, open, operation, [operation](Status removed) {
    if (!removed.ok()) return operation->complete(failure(std::move(removed).error()));
    const BoxPayload::Value value = [](Napi::Env at) -> Result<Napi::Value> { return at.Null(); };
    operation->complete(std::make_unique<BoxPayload>(value));
  });
  return operation->id();
}

HandleId Boxes::configure(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  const std::string config = text_of(request, "config");
  Operation operation = open_operation(env, false);
  ground_->on_worker(operation, [operation, open, config] {
    Status done = open->box->update([&](box::BoxRecord& record) { record.spec.config = config; });
    if (!done.ok()) return operation->complete(failure(std::move(done).error()));
    const BoxPayload::Value value = [](Napi::Env at) -> Result<Napi::Value> { return at.Null(); };
    operation->complete(std::make_unique<BoxPayload>(value));
  });
  return operation->id();
}

HandleId Boxes::rebase(Napi::Env env, const Napi::Object& request, bool wants_progress) {
  const auto open = box_of(request);
  const auto options = rebase_options_of(request);
  const std::size_t disk = whole_of(request, "disk");
  Operation operation = open_operation(env, wants_progress);
  ground_->on_worker(operation, [operation, open, options, disk, ground = ground_, policy = policy_] {
    image::OperationContext context{*policy, operation->cancel(), *operation};
    context.chain_depth = image::kMaxOwnChainDepth;
    auto rebased = box::rebase_box(open->box, *ground->reactor, disk, options, open->is_held(), context);
    if (!rebased.ok()) return operation->complete(failure(std::move(rebased).error()));
    auto value = [rebased = *rebased](Napi::Env at) -> Result<Napi::Value> {
      Napi::Object object = rebase_to_js(at, rebased.result);
      if (rebased.paused) object.Set("pausedMs", static_cast<double>(rebased.paused->count()) / 1000);
      return object.As<Napi::Value>();
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value))));
  });
  return operation->id();
}

HandleId Boxes::resize(Napi::Env env, const Napi::Object& request) {
  const auto open = box_of(request);
  const std::size_t disk = whole_of(request, "disk");
  const std::uint64_t size = whole_of(request, "size");
  Operation operation = open_operation(env, false);
  ground_->on_worker(operation, [operation, open, disk, size, ground = ground_, policy = policy_] {
    image::OperationContext context{*policy, operation->cancel(), *operation};
    context.chain_depth = image::kMaxOwnChainDepth;
    auto resized = box::resize_box(open->box, *ground->reactor, disk, size, open->is_held(), context);
    if (!resized.ok()) return operation->complete(failure(std::move(resized).error()));
    auto value = [resized = *resized](Napi::Env at) -> Result<Napi::Value> {
      Napi::Object object = Napi::Object::New(at);
      object.Set("from", number(at, resized.from));
      object.Set("to", number(at, resized.to));
      return object.As<Napi::Value>();
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value))));
  });
  return operation->id();
}

HandleId Boxes::execute(Napi::Env env, const Napi::Object& request) {
  const auto open_box = box_of(request);
  const auto options = std::make_shared<box::ExecutionOptions>(execution_options_of(request));
  auto reserved = OpenExecution::open(*queue_, ground_->reactor, options->high_water_mark);
  if (!reserved.ok()) throw throwable(env, reserved.error());
  const auto open = std::move(reserved).value();
  const auto give_back_execution = [queue = queue_, open] {
    open->release();
    [[maybe_unused]] const auto claim = queue->claim(open->id());
  };
  Operation operation;
  try {
    operation = open_operation(env, false);
  } catch (...) {
    give_back_execution();
    throw;
  }
  const auto spawned = [=, queue = queue_, self = weak_from_this()](Result<std::uint32_t> pid) {
    if (!pid.ok()) {
      give_back_execution();
      return operation->complete(failure(std::move(pid).error()));
    }
    auto value = [self, open, pid = pid.value()](Napi::Env at) -> Result<Napi::Value> {
      const auto boxes = self.lock();
      if (!boxes) return Error(ErrorCode::kClosed, "the runtime is closed");
      boxes->adopt(open);
      Napi::Object object = Napi::Object::New(at);
      object.Set("handle", from_handle(at, open->id()));
      object.Set("pid", Napi::Number::New(at, pid));
      return object.As<Napi::Value>();
    };
    auto reclaim = [queue, open] {
      open->kill_unowned();
      [[maybe_unused]] const auto claim = queue->claim(open->id());
    };
    operation->complete(std::make_unique<BoxPayload>(BoxPayload::Value(std::move(value)), std::move(reclaim)));
  };
  ground_->reactor->post([=] {
    if (Status wanted = operation->cancel().check(); !wanted.ok()) return spawned(std::move(wanted).error());
    auto execution = open_box->box->execute(std::move(*options), open, spawned);
    if (execution.ok())
      open->set_execution(std::move(execution).value());
    else
      spawned(std::move(execution).error());
  });
  return operation->id();
}

// ---------- handles ----------
void Boxes::adopt(std::shared_ptr<OpenBox> open) { boxes_[key_of(open->id())] = std::move(open); }
void Boxes::adopt(std::shared_ptr<OpenExecution> open) { executions_[key_of(open->id())] = std::move(open); }

std::shared_ptr<OpenBox> Boxes::find(const std::string& id) const {
  for (const auto& [key, open] : boxes_) {
    if (open->box->record().id == id && open->state() != box::State::kRemoved) return open;
  }
  return nullptr;
}

std::shared_ptr<OpenBox> Boxes::box_of(const Napi::Object& request) {
  const auto found = boxes_.find(key_of(to_handle(request.Get("box"))));
  if (ended_) throw throwable(request.Env(), Error(ErrorCode::kClosed, "the runtime is closed"));
  if (found == boxes_.end()) throw throwable(request.Env(), Error(ErrorCode::kBoxState, "the box is removed"));
  return found->second;
}

Napi::Value Boxes::command(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::uint64_t key = key_of(to_handle(info[0]));
  if (!info[1].IsString()) throw Napi::TypeError::New(env, "verb: expected a string");
  const std::string verb = info[1].As<Napi::String>().Utf8Value();
  const Napi::Object request = object_argument(info, 2);
  if (ended_) throw throwable(env, Error(ErrorCode::kClosed, "the runtime is closed"));
  const std::uint32_t number = next_request_++;
  if (next_request_ == 0) next_request_ = 1;
  if (const auto box = boxes_.find(key); box != boxes_.end()) {
    command_box(box->second, number, verb, request);
  } else if (const auto execution = executions_.find(key); execution != executions_.end()) {
    command_execution(execution->second, number, verb, request);
  } else {
    throw throwable(env, Error(ErrorCode::kBoxState, "the handle is not open"));
  }
  return Napi::Number::New(env, number);
}

void Boxes::command_box(const std::shared_ptr<OpenBox>& open, std::uint32_t number, const std::string& verb,
                        const Napi::Object& request) {
  if (verb == "pause") {
    ground_->reactor->post([open, number] { open->box->pause(number); });
    return;
  }
  if (verb == "resume") {
    ground_->reactor->post([open, number] { open->box->resume(number); });
    return;
  }
  if (verb == "leave") {
    ground_->reactor->post([open, number] { open->box->leave(number); });
    return;
  }
  if (verb != "stop") throw Napi::TypeError::New(request.Env(), "verb: a box has no '" + verb + "'");
  const auto grace = millis_of(request, "graceMs");
  ground_->reactor->post([open, number, grace] { open->box->stop(number, grace); });
}

void Boxes::command_execution(const std::shared_ptr<OpenExecution>& open, std::uint32_t number, const std::string& verb,
                              const Napi::Object& request) {
  if (verb == "write") {
    open->with([number, bytes = bytes_of(request, "bytes")](box::Execution& execution) mutable {
      execution.write(number, std::move(bytes));
    });
  } else if (verb == "end") {
    open->with([number](box::Execution& execution) { execution.end_input(number); });
  } else if (verb == "kill") {
    open->with([number, kill = kill_of(request)](box::Execution& execution) { execution.kill(number, kill); });
  } else if (verb == "resize") {
    open->with([number, size = resize_of(request)](box::Execution& execution) { execution.resize(number, size); });
  } else if (verb == "discard") {
    const auto lane = whole_of(request, "lane");
    open->with([number, lane](box::Execution& execution) {
      execution.discard(lane == 2 ? protocol::Stream::kStderr : protocol::Stream::kStdout);
      execution.answer(number);
    });
  } else {
    throw Napi::TypeError::New(request.Env(), "verb: an execution has no '" + verb + "'");
  }
}

Napi::Value Boxes::news(const Napi::CallbackInfo& info) {
  const std::uint64_t key = key_of(to_handle(info[0]));
  std::vector<News> news;
  if (const auto box = boxes_.find(key); box != boxes_.end()) news = box->second->mailbox().take();
  if (const auto run = executions_.find(key); run != executions_.end()) news = run->second->mailbox().take();
  Napi::Array array = Napi::Array::New(info.Env(), news.size());
  for (std::uint32_t i = 0; i < news.size(); ++i) {
    Napi::Object object = Napi::Object::New(info.Env());
    news[i](object);
    array.Set(i, object);
  }
  return array;
}

Napi::Value Boxes::read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto found = executions_.find(key_of(to_handle(info[0])));
  const std::uint32_t number = info[1].IsNumber() ? info[1].As<Napi::Number>().Uint32Value() : 0;
  event_queue::Lane* lane = found == executions_.end() ? nullptr : found->second->lane(number);
  if (ended_) {  // what was held went with the runtime
    Napi::Object nothing = Napi::Object::New(env);
    nothing.Set("chunk", Napi::Buffer<std::byte>::New(env, 0));
    nothing.Set("more", Napi::Boolean::New(env, false));
    nothing.Set("ended", Napi::Boolean::New(env, true));
    return nothing;
  }
  if (lane == nullptr) throw Napi::TypeError::New(env, "expected an open execution and a lane, 1 or 2");
  const double wanted = info[2].IsNumber() ? info[2].As<Napi::Number>().DoubleValue() : 0;
  const std::size_t limit =
      wanted >= 1 && wanted < static_cast<double>(kMaxRead) ? static_cast<std::size_t>(wanted) : kMaxRead;
  // One reader: what is held can only grow meanwhile.
  Napi::Buffer<std::byte> buffer = Napi::Buffer<std::byte>::New(env, std::min(limit, lane->held()));
  const event_queue::Lane::Read read = lane->read({buffer.Data(), buffer.Length()});
  if (read.bytes > 0) found->second->was_read(number);
  Napi::Object result = Napi::Object::New(env);
  result.Set("chunk", buffer);
  result.Set("more", Napi::Boolean::New(env, read.more));
  result.Set("ended", Napi::Boolean::New(env, read.ended));
  return result;
}

void Boxes::release(const Napi::CallbackInfo& info) {
  const std::uint64_t key = key_of(to_handle(info[0]));
  if (const auto execution = executions_.find(key); execution != executions_.end()) {
    execution->second->release();
    [[maybe_unused]] const auto claim = queue_->claim(execution->second->id());
    executions_.erase(execution);
  } else if (const auto box = boxes_.find(key); box != boxes_.end()) {
    drop(*queue_, *box->second);
    // Its last owner is to be the reactor's thread, which its descriptors belong to.
    ground_->reactor->post([open = box->second] {});
    boxes_.erase(box);
  }
}

void Boxes::shutdown() {
  if (std::exchange(ended_, true) || ground_ == nullptr) return;
  ground_->reactor->post([boxes = boxes_] {
    for (const auto& [key, open] : boxes) {
      // Never started: nobody else holds it, and nobody else would take it away.
      if (open->box->state() == box::State::kCreated && open->held) {
        open->let_go();
        const box::BoxRecord& record = open->box->record();
        if (!record.spec.keep) [[maybe_unused]]
          const Status removed = open->box->home().remove(record.id);
      }
      open->box->abandon();
    }
  });
  ground_->reactor->stop();
  ground_->engine->close();
  // The reactor has ended: this thread is the last that owns any of them, and unties who own each other.
  for (const auto& [key, open] : executions_) {
    open->mailbox().shut();
    open->set_execution(nullptr);
  }
  for (const auto& [key, open] : boxes_) {
    open->mailbox().shut();
    open->box->listen(nullptr);
  }
  // With them go the reactor's descriptors and the home's.
  executions_.clear();
  boxes_.clear();
  ground_.reset();
}

}  // namespace sluicebox::addon

#include "box/execution.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "box/spawn_error.h"

namespace sluicebox::box {

namespace {

using protocol::Stdio;
using protocol::Stream;
using protocol::Type;

// Past what Linux takes of arguments and environment together (a quarter of an 8 MiB stack, with an unlimited one
// 6 MiB): not worth a message.
constexpr std::size_t kMaxSpawn = std::size_t{6} << 20;
// No more than this is under way in one framed stream: a window of the size of the mark would let one slow reader fill
// the port.
constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 20;

Stdio stdio_of(Output output, bool framed) {
  if (output == Output::kNull) return Stdio::kNull;
  if (output == Output::kStdout) return Stdio::kStdout;
  return framed ? Stdio::kFramed : Stdio::kPassed;
}

// One pipe: the program's end goes to `theirs`.
Result<UniqueFd> pipe_for(bool program_writes, std::vector<UniqueFd>& theirs) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error(errno, "cannot make a pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  UniqueFd& ours = program_writes ? read_end : write_end;
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  // Else a program of another user could not open its own /dev/stdout.
  ::fchmod(ours.get(), 0666);
  theirs.push_back(std::move(program_writes ? write_end : read_end));
  return std::move(ours);
}

}  // namespace

Execution::Execution(Reactor& reactor, Session& session, ExecutionOptions options,
                     std::shared_ptr<ExecutionListener> listener)
    : reactor_(reactor), session_(&session), options_(std::move(options)), listener_(std::move(listener)) {}

// ---------- birth ----------
void Execution::spawn(Spawned spawned) {
  protocol::Spawn& spawn = options_.spawn;
  const Stdio io = options_.framed ? Stdio::kFramed : Stdio::kPassed;
  spawn.in = options_.stdin_pipe || spawn.tty ? io : Stdio::kNull;
  spawn.out = spawn.tty ? io : stdio_of(options_.out, options_.framed);
  spawn.err = spawn.tty ? Stdio::kStdout : stdio_of(options_.err, options_.framed);
  const std::uint64_t window = std::min(options_.high_water_mark, kMaxWindow);
  spawn.window = static_cast<std::uint32_t>(window);
  const protocol::Encoded message = protocol::encode(spawn);
  if (message.size() > kMaxSpawn) {
    return spawned(spawn_error(spawn, {protocol::SpawnStep::kProgram, E2BIG}));
  }
  auto theirs = make_pipes();
  if (!theirs.ok()) return spawned(std::move(theirs).error());
  spawned_ = std::move(spawned);
  if (spawn.out == Stdio::kFramed) framed_out_ = {&listener_->sink(Stream::kStdout), window, 0};
  if (spawn.err == Stdio::kFramed) framed_err_ = {&listener_->sink(Stream::kStderr), window, 0};
  channel_ = session_->open(shared_from_this());
  session_->send(Type::kSpawn, channel_, 0, message, std::move(theirs).value());
}

Result<std::vector<UniqueFd>> Execution::make_pipes() {
  std::vector<UniqueFd> theirs;
  const protocol::Spawn& spawn = options_.spawn;
  if (spawn.tty) return theirs;
  if (spawn.in == Stdio::kPassed) ours_.in = TRY(pipe_for(false, theirs));
  if (spawn.out == Stdio::kPassed) ours_.out = TRY(pipe_for(true, theirs));
  if (spawn.err == Stdio::kPassed) ours_.err = TRY(pipe_for(true, theirs));
  return theirs;
}

Status Execution::started(const protocol::Spawned& spawned, std::vector<UniqueFd>& passed) {
  const bool terminal = options_.spawn.tty && !options_.framed;
  if (!spawned_ || passed.size() != (terminal ? 1U : 0U)) {
    return Error(ErrorCode::kIo, "the agent spawned what was not asked for");
  }
  TRY(start_pumps(terminal ? std::move(passed[0]) : UniqueFd()));
  finish_unused_sinks();
  std::exchange(spawned_, nullptr)(spawned.pid);
  return ok_status();
}

Status Execution::start_pumps(UniqueFd terminal) {
  const InputPump::Answer answer = [listener = listener_](std::uint32_t request, Status status) {
    listener->answered(request, status.ok() ? Result<bool>(true) : Result<bool>(std::move(status).error()));
  };
  if (terminal.valid()) {
    ::fcntl(terminal.get(), F_SETFL, O_NONBLOCK);
    // Reading and writing are watched apart, and one descriptor is watched once.
    ours_.in = UniqueFd(::fcntl(terminal.get(), F_DUPFD_CLOEXEC, 0));
    if (!ours_.in.valid()) return os_error(errno, "cannot double a terminal");
    ours_.out = std::move(terminal);
  }
  if (ours_.in.valid()) in_.emplace(reactor_, std::move(ours_.in), options_.spawn.tty, answer);
  if (options_.framed && options_.spawn.in == Stdio::kFramed) framed_in_.emplace(*session_, channel_, answer);
  const auto start = [this](std::optional<OutputPump>& pump, UniqueFd pipe, Stream stream) -> Status {
    if (!pipe.valid()) return ok_status();
    pump.emplace(reactor_, std::move(pipe), options_.spawn.tty, listener_->sink(stream),
                 [this, stream] { tell_stalled(stream); });
    return pump->start();
  };
  TRY(start(out_, std::move(ours_.out), Stream::kStdout));
  TRY(start(err_, std::move(ours_.err), Stream::kStderr));
  return ok_status();
}

// A stream that is not piped ends before it begins.
void Execution::finish_unused_sinks() {
  if (!out_ && framed_out_.sink == nullptr) listener_->sink(Stream::kStdout).finish();
  if (!err_ && framed_err_.sink == nullptr) listener_->sink(Stream::kStderr).finish();
}

void Execution::spawn_failed(const protocol::SpawnFailed& failed) {
  const auto self = shared_from_this();
  session_->close(channel_);
  session_ = nullptr;
  ended_ = true;
  ours_ = {};
  framed_out_ = {};
  framed_err_ = {};
  std::exchange(spawned_, nullptr)(spawn_error(options_.spawn, failed));
}

// ---------- commands ----------
void Execution::write(std::uint32_t request, std::vector<std::byte> bytes) {
  if (in_) return in_->write(request, std::move(bytes));
  if (framed_in_) return framed_in_->write(request, std::move(bytes));
  listener_->answered(request, stdin_closed());
}

void Execution::end_input(std::uint32_t request) {
  if (in_) return in_->end(request);
  if (framed_in_) return framed_in_->end(request);
  listener_->answered(request, true);
}

void Execution::kill(std::uint32_t request, const protocol::Kill& kill) {
  // After the end there is nothing that a signal could reach.
  if (ended_ || session_ == nullptr) return listener_->answered(request, false);
  asked_.emplace(request, Type::kKilled);
  session_->send(Type::kKill, channel_, request, protocol::encode(kill));
}

void Execution::resize(std::uint32_t request, const protocol::Resize& resize) {
  if (ended_ || session_ == nullptr) {
    return listener_->answered(request, Error(ErrorCode::kExecLost, "the process has ended"));
  }
  asked_.emplace(request, Type::kResized);
  session_->send(Type::kResize, channel_, request, protocol::encode(resize));
}

void Execution::resume(Stream stream) {
  if (auto& pipe = pump(stream)) return pipe->resume();
  give_credit(stream);
}

void Execution::discard(Stream stream) {
  if (auto& pipe = pump(stream)) {
    pipe->discard();
  } else if (framed(stream).sink != nullptr) {
    end_output(stream);
    if (session_ != nullptr) session_->send(Type::kDiscard, channel_, 0, protocol::encode(protocol::OfStream{stream}));
  }
  let_go_when_done();
}

// ---------- what the agent says ----------
Status Execution::received(Type type, std::uint32_t request, Bytes payload, std::vector<UniqueFd>& passed) {
  switch (type) {
    case Type::kSpawned:
      return started(TRY(protocol::decode_spawned(payload)), passed);
    case Type::kSpawnFailed:
      if (!spawned_) break;
      spawn_failed(TRY(protocol::decode_spawn_failed(payload)));
      return ok_status();
    case Type::kOutput:
      return took_output(TRY(protocol::decode_data(payload)));
    case Type::kOutputEnd:
      end_output(TRY(protocol::decode_of_stream(payload)).stream);
      let_go_when_done();
      return ok_status();
    case Type::kCredit: {
      const protocol::Credit credit = TRY(protocol::decode_credit(payload));
      if (credit.stream != Stream::kStdin || !framed_in_) break;
      framed_in_->credit(credit.bytes);
      return ok_status();
    }
    case Type::kInputClosed:
      close_input();
      return ok_status();
    case Type::kExited:
      if (ended_ || spawned_) break;
      ended(TRY(protocol::decode_exited(payload)));
      return ok_status();
    case Type::kKilled: {
      const protocol::Killed killed = TRY(protocol::decode_killed(payload));
      if (asked_.erase(request) == 0) break;
      listener_->answered(request, killed.delivered);
      let_go_when_done();
      return ok_status();
    }
    case Type::kResized: {
      const protocol::Resized resized = TRY(protocol::decode_resized(payload));
      if (asked_.erase(request) == 0) break;
      if (resized.os_error == 0)
        listener_->answered(request, true);
      else
        listener_->answered(request, os_error(static_cast<int>(resized.os_error), "cannot resize the terminal"));
      let_go_when_done();
      return ok_status();
    }
    default:
      break;
  }
  return Error(ErrorCode::kIo, "the agent sent a message that fits no state of its execution");
}

Status Execution::took_output(const protocol::Data& data) {
  Framed& stream = framed(data.stream);
  if (data.stream == Stream::kStdin || options_.spawn.out == Stdio::kPassed) {
    return Error(ErrorCode::kIo, "the agent sent output of a stream that has none");
  }
  if (stream.sink == nullptr) return ok_status();  // discarded here, and not there yet
  if (data.bytes.size() > stream.credit) return Error(ErrorCode::kIo, "the agent sent more than it had credit for");
  stream.credit -= data.bytes.size();
  stream.total += data.bytes.size();
  Bytes left = data.bytes;
  while (!left.empty()) {
    const MutableBytes space = stream.sink->space(left.size());
    // Credit is never more than the sink's room.
    if (space.empty()) return Error(ErrorCode::kInternal, "credit was given for more than there is room");
    std::memcpy(space.data(), left.data(), space.size());
    stream.sink->filled(space.size());
    left = left.subspan(space.size());
  }
  give_credit(data.stream);
  return ok_status();
}

// As much as there is room for, in portions that are worth a message.
void Execution::give_credit(Stream stream) {
  Framed& of = framed(stream);
  if (of.sink == nullptr || session_ == nullptr) return;
  const std::uint64_t window = std::min(options_.high_water_mark, kMaxWindow);
  const std::uint64_t room = std::min<std::uint64_t>(of.sink->room(), window);
  if (room <= of.credit) {
    if (of.credit == 0) tell_stalled(stream);
    return;
  }
  const std::uint64_t more = room - of.credit;
  if (more < window / 4 && of.credit > 0) return;
  of.credit += more;
  session_->send(Type::kCredit, channel_, 0,
                 protocol::encode(protocol::Credit{stream, static_cast<std::uint32_t>(more)}));
}

void Execution::tell_stalled(Stream stream) {
  bool& told = told_stalled_[stream == Stream::kStderr ? 1 : 0];
  if (!std::exchange(told, true)) listener_->stalled(stream);
}

void Execution::end_output(Stream stream) {
  Framed& of = framed(stream);
  if (of.sink != nullptr) std::exchange(of.sink, nullptr)->finish();
}

void Execution::ended(protocol::Exited exited) {
  ended_ = true;
  close_input();
  if (!options_.framed) {
    exited.own_stdout = out_ ? out_->end_at_own_bytes() : 0;
    exited.own_stderr = err_ ? err_->end_at_own_bytes() : 0;
  }
  listener_->exited(exited);
  let_go_when_done();
}

void Execution::close_input() {
  if (in_) in_->close();
  if (framed_in_) framed_in_->close();
}

// The agent has nothing more to say, also to what was asked when the process had ended already.
void Execution::let_go_when_done() {
  if (!ended_ || session_ == nullptr || !asked_.empty() || framed_out_.sink != nullptr || framed_err_.sink != nullptr)
    return;
  if (out_ && !out_->at_end()) return;
  if (err_ && !err_->at_end()) return;
  // From here on nobody tells it of the session's end.
  std::exchange(session_, nullptr)->close(channel_);
}

void Execution::lost(const Error& why) {
  const auto self = shared_from_this();
  session_ = nullptr;
  close_input();
  framed_in_.reset();
  end_output(Stream::kStdout);
  end_output(Stream::kStderr);
  // What the pipes hold was written by the process: it is read, and their end comes with the box's.
  for (const auto& [request, type] : std::exchange(asked_, {})) {
    if (type == Type::kKilled)
      listener_->answered(request, false);
    else
      listener_->answered(request, Error(ErrorCode::kExecLost, "the box is gone"));
  }
  if (spawned_) {
    std::exchange(spawned_, nullptr)(why);
  } else if (!std::exchange(ended_, true)) {
    listener_->lost(Error(ErrorCode::kExecLost, "the process was lost before its end was known: " + why.message));
  }
}

}  // namespace sluicebox::box

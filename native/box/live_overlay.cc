#include "box/live_overlay.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace sluicebox::box {

namespace {

using nlohmann::json;

constexpr std::chrono::seconds kPatience{30};
constexpr const char* kExport = "slu-export";
constexpr const char* kFilter = "slu-copy-on-read";
constexpr const char* kSocket = "export.sock";

struct Meeting {
  UniqueFd listener;
  UniqueFd caller;
};

// A connected pair that QEMU accepts: it takes a listening socket only. Its name is there for the moment in between,
// in a directory of the box that nobody else may enter.
Result<Meeting> meet_in(int directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = "/proc/self/fd/" + std::to_string(directory) + "/" + kSocket;
  if (path.size() >= sizeof address.sun_path) return Error(ErrorCode::kInternal, "a socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);  // as the calls want it
  Meeting meeting{.listener = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
                  .caller = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  ::unlinkat(directory, kSocket, 0);
  const bool met =
      meeting.listener.valid() && meeting.caller.valid() && ::bind(meeting.listener.get(), name, sizeof address) == 0 &&
      ::listen(meeting.listener.get(), 1) == 0 && ::connect(meeting.caller.get(), name, sizeof address) == 0;
  const int failed = errno;
  ::unlinkat(directory, kSocket, 0);
  if (!met) return os_error(failed, "cannot make a socket for the disk's export");
  return meeting;
}

}  // namespace

LiveOverlay::~LiveOverlay() { close_export(); }

Status LiveOverlay::choose(const std::vector<image::Layer>& chain) {
  chain_.clear();
  for (const image::Layer& layer : chain) chain_.push_back(TRY(box::reopen(layer, false)));
  return ok_status();
}

std::string LiveOverlay::chain_node() const { return place_.node + "-" + std::to_string(place_.generation) + "-0"; }

Status LiveOverlay::read(std::uint64_t, MutableBytes) {
  return Error(ErrorCode::kInternal, "a running machine's overlay is not read from outside");
}

Result<image::BlockStatus> LiveOverlay::status(std::uint64_t, std::uint64_t length) {
  image::BlockStatus status;
  status.length = length;
  return status;
}

Status LiveOverlay::copy_up(std::uint64_t offset, std::uint64_t length) {
  if (!reader_) TRY(open_export());
  length = std::min(length, size_ - offset);
  while (length > 0) {
    buffer_.resize(std::min<std::uint64_t>(length, NbdClient::kLongestRead));
    TRY(reader_->read(offset, buffer_));
    offset += buffer_.size();
    length -= buffer_.size();
  }
  return ok_status();
}

// What was copied is as durable as what the guest writes: QEMU flushes both when the guest asks. The pointer is to
// follow it, so it is asked for here.
Status LiveOverlay::flush() {
  close_export();
  return ok_status();
}

// ---------- the export ----------
Status LiveOverlay::open_export() {
  auto [listener, caller] = TRY(meet_in(place_.directory));
  TRY(call_("getfd", {{"fdname", kExport}}, one(std::move(listener))));
  const json address = {{"type", "fd"}, {"data", {{"str", kExport}}}};
  TRY(call_("nbd-server-start", {{"addr", address}, {"max-connections", 1}}, {}));
  exported_ = true;
  TRY(call_("blockdev-add", {{"driver", "copy-on-read"}, {"node-name", kFilter}, {"file", place_.node}}, {}));
  const json request = {
      {"type", "nbd"}, {"id", kExport}, {"node-name", kFilter}, {"name", kExport}, {"writable", false}};
  TRY(call_("block-export-add", request, {}));
  reader_ = TRY(NbdClient::negotiate(std::move(caller), kExport, kPatience));
  if (reader_->size() < size_) return Error(ErrorCode::kIo, "QEMU exports less than the disk");
  return ok_status();
}

// Each step whether or not those before it were done.
void LiveOverlay::close_export() {
  reader_.reset();
  if (!std::exchange(exported_, false)) return;
  for (const auto& [command, arguments] :
       {std::pair<const char*, json>{"block-export-del", {{"id", kExport}, {"mode", "hard"}}},
        {"nbd-server-stop", json::object()},
        {"blockdev-del", {{"node-name", kFilter}}}}) {
    [[maybe_unused]] const auto done = call_(command, arguments, {});
  }
}

// ---------- the pointer ----------
Status LiveOverlay::can_set_backing(const std::optional<image::BackingReference>& backing) const {
  if (backing) return ok_status();
  return Error(ErrorCode::kUnsupported, "a running box's disk cannot be left without a base")
      .advise("Stop the box first.");
}

// Data first, durable by now. The guest stands still from here until QEMU reads the new chain, and its header says so.
Status LiveOverlay::set_backing(const std::optional<image::BackingReference>& backing) {
  close_export();
  const json chain = TRY(add_chain());
  const auto began = std::chrono::steady_clock::now();
  Status stopped = call_("stop", json::object(), {}).ok()
                       ? ok_status()
                       : Status(Error(ErrorCode::kIo, "QEMU does not pause the guest"));
  Status switched = stopped.ok() ? switch_chain(backing->path) : std::move(stopped);
  const auto resumed = call_("cont", json::object(), {});
  paused_ = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);
  for (const std::string& unused : switched.ok() ? place_.below : std::vector{chain_node()}) {
    [[maybe_unused]] const auto deleted = call_("blockdev-del", {{"node-name", unused}}, {});
  }
  TRY(std::move(switched));
  if (!resumed.ok()) return resumed.error();
  backing_ = backing;
  return ok_status();
}

Result<json> LiveOverlay::add_chain() {
  json below = nullptr;
  for (std::size_t i = chain_.size(); i-- > 0;) {
    const OpenLayer& layer = chain_[i];
    UniqueFd copy(::fcntl(layer.file.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) return os_error(errno, "cannot double a descriptor");
    const std::uint64_t set = TRY(add_to_set(call_, std::move(copy)));
    const std::string name = place_.node + "-" + std::to_string(place_.generation) + "-" + std::to_string(i);
    json node = {{"driver", image::format_name(layer.format)},
                 {"node-name", name},
                 {"read-only", true},
                 {"file",
                  {{"driver", "file"},
                   {"node-name", name + "-file"},
                   {"filename", "/dev/fdset/" + std::to_string(set)},
                   {"read-only", true}}}};
    if (layer.format == image::DiskFormat::kQcow2) node["backing"] = std::move(below);
    below = std::move(node);
  }
  TRY(call_("blockdev-add", below, {}));
  return below;
}

// The options as the overlay was opened with, but for what lies below.
Status LiveOverlay::reopen(const json& backing) {
  const json overlay = {{"driver", "qcow2"},  {"node-name", place_.node},      {"read-only", false},
                        {"discard", "unmap"}, {"file", place_.node + "-file"}, {"backing", backing}};
  TRY(call_("blockdev-reopen", {{"options", json::array({overlay})}}, {}));
  return ok_status();
}

Status LiveOverlay::switch_chain(const std::string& recorded) {
  TRY(reopen(chain_node()));
  const auto written =
      call_("change-backing-file",
            {{"device", place_.node}, {"image-node-name", place_.node}, {"backing-file", recorded}}, {});
  if (written.ok()) return ok_status();
  // As it was: the header still names the old chain.
  const std::string before = place_.below.empty() ? place_.node + "-1" : place_.below.front();
  [[maybe_unused]] const Status back = reopen(before);
  return written.error();
}

}  // namespace sluicebox::box

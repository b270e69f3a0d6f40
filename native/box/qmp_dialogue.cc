#include "box/qmp_dialogue.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "box/qmp_words.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;

constexpr std::size_t kMostIncoming = std::size_t{1} << 20;
constexpr std::size_t kMostSteps = 100;
// How long a wait goes on before it looks whether it is still wanted.
constexpr std::chrono::milliseconds kLookUp{50};

Error no_qmp(const char* why) { return {ErrorCode::kBoxStart, std::string("the box did not start: QEMU ") + why}; }

}  // namespace

Status QmpDialogue::greet() {
  TRY(next());
  TRY(execute("qmp_capabilities"));
  return ok_status();
}

Result<json> QmpDialogue::execute(const std::string& command, const json& arguments, int passed) {
  const std::uint64_t id = next_id_++;
  TRY(send(json{{"execute", command}, {"arguments", arguments}, {"id", id}}.dump() + "\n", passed));
  while (true) {
    json message = TRY(next());
    if (!message.contains("id") || message["id"] != id) continue;
    if (message.contains("return")) return message["return"];
    std::string said = "an error";
    if (message.contains("error") && message["error"].contains("desc") && message["error"]["desc"].is_string())
      said = message["error"]["desc"].get<std::string>();
    return Error(ErrorCode::kIo, std::string("QEMU says to ").append(command).append(": ").append(said));
  }
}

Status QmpDialogue::await_migration() {
  while (true) {
    for (const std::string& status : std::exchange(migration_, {})) {
      if (status == "completed") return ok_status();
      if (status == "failed" || status == "cancelled") return no_qmp("cannot take up the memory of the snapshot");
    }
    TRY(next());
  }
}

// One descriptor, with the first byte.
Status QmpDialogue::send(const std::string& line, int passed) {
  std::size_t sent = 0;
  while (sent < line.size()) {
    iovec part{const_cast<char*>(line.data() + sent), line.size() - sent};  // sendmsg reads only
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (passed >= 0 && sent == 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof passed);
      std::memcpy(CMSG_DATA(rights), &passed, sizeof passed);
    }
    const ssize_t count = ::sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0)
      sent += static_cast<std::size_t>(count);
    else if (errno == EAGAIN)
      TRY(wait(POLLOUT));
    else if (errno != EINTR)
      return no_qmp("ended");
  }
  return ok_status();
}

Result<json> QmpDialogue::next() {
  while (true) {
    if (const std::size_t end = incoming_.find('\n'); end != std::string::npos) {
      json message = qmp_message(incoming_.substr(0, end));
      incoming_.erase(0, end + 1);
      if (!message.is_object()) return no_qmp("is not to be trusted: it speaks no QMP");
      if (message.contains("event") && message["event"] == "MIGRATION" && message.contains("data") &&
          message["data"].contains("status") && message["data"]["status"].is_string())
        migration_.push_back(message["data"]["status"].get<std::string>());
      if (migration_.size() > kMostSteps) return no_qmp("is not to be trusted: it tells of too many steps");
      return message;
    }
    if (incoming_.size() > kMostIncoming) return no_qmp("is not to be trusted: it speaks no QMP");
    TRY(wait(POLLIN));
    // To the end of a line and no further: what follows is for whoever has the socket next.
    std::array<char, 4096> bytes{};
    const ssize_t seen = ::recv(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_PEEK);
    if (seen < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (seen <= 0) return no_qmp("ended");
    const auto* stop = static_cast<const char*>(std::memchr(bytes.data(), '\n', static_cast<std::size_t>(seen)));
    const std::size_t take =
        stop != nullptr ? static_cast<std::size_t>(stop - bytes.data()) + 1 : static_cast<std::size_t>(seen);
    const ssize_t got = ::recv(socket_, bytes.data(), take, MSG_DONTWAIT);
    if (got > 0) incoming_.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

Status QmpDialogue::wait(short events) {
  while (true) {
    TRY(cancel_.check());
    const auto left = deadline_ - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) return no_qmp("does not answer in time");
    const auto slice = std::min(std::chrono::ceil<std::chrono::milliseconds>(left), kLookUp);
    pollfd ends[2] = {{.fd = socket_, .events = events, .revents = 0}, {.fd = other_, .events = POLLIN, .revents = 0}};
    const int count = ::poll(ends, 2, static_cast<int>(slice.count()));
    if (count < 0 && errno != EINTR) return os_error(errno, "cannot wait for QEMU");
    if (count <= 0) continue;
    if (ends[0].revents != 0) return ok_status();
    if (ends[1].revents != 0) TRY(heard_());
  }
}

}  // namespace sluicebox::box

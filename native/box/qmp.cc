#include "box/qmp.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "box/qmp_words.h"

namespace sluicebox::box {

namespace {

using nlohmann::json;

// An answer that lists block nodes takes some hundred bytes for each.
constexpr std::size_t kLongestLine = std::size_t{4} * 1024 * 1024;

// Bytes sent, or -1 with errno set.
ssize_t send_with(int socket, const char* bytes, std::size_t count, const std::vector<UniqueFd>& passed) {
  iovec part{const_cast<char*>(bytes), count};  // sendmsg reads only; its interface has no const
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  std::vector<int> numbers;
  numbers.reserve(passed.size());
  for (const UniqueFd& fd : passed) numbers.push_back(fd.get());
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 8)> control{};
  if (!numbers.empty()) {
    const std::size_t size = numbers.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(rights), numbers.data(), size);
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent;
}

Error refusal(const json& error) {
  const auto text = error.find("desc");
  return {ErrorCode::kIo, "QEMU says: " + (text != error.end() && text->is_string() ? text->get<std::string>()
                                                                                    : std::string("an error"))};
}

}  // namespace

Qmp::Qmp(Reactor& reactor, UniqueFd socket, Event event)
    : reactor_(reactor), socket_(std::move(socket)), event_(std::move(event)) {}

Qmp::~Qmp() {
  *alive_ = false;
  if (socket_.valid()) reactor_.unwatch(socket_.get());
}

Status Qmp::start() {
  TRY(reactor_.watch(socket_.get(), EPOLLIN, this));
  // Until this is done QEMU takes no other command.
  execute("qmp_capabilities", json::object(), [](const Result<json>&) {});
  return ok_status();
}

void Qmp::execute(const std::string& command, const json& arguments, Answer answer, std::vector<UniqueFd> passed) {
  if (!socket_.valid()) return answer(Error(ErrorCode::kBoxLost, "the box's QEMU is gone"));
  const std::uint64_t id = next_++;
  waiting_.emplace(id, std::move(answer));
  const json line = {{"execute", command}, {"arguments", arguments}, {"id", id}};
  outgoing_.push_back({line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", 0, std::move(passed)});
  flush();
}

void Qmp::flush() {
  while (!outgoing_.empty()) {
    Line& line = outgoing_.front();
    const ssize_t sent =
        send_with(socket_.get(), line.text.data() + line.sent, line.text.size() - line.sent, line.passed);
    if (sent < 0 && errno == EAGAIN) return reactor_.change(socket_.get(), EPOLLIN | EPOLLOUT);
    if (sent < 0) return outgoing_.clear();  // its hang-up is about to be read
    line.passed.clear();
    line.sent += static_cast<std::size_t>(sent);
    if (line.sent == line.text.size()) outgoing_.pop_front();
  }
  reactor_.change(socket_.get(), EPOLLIN);
}

void Qmp::ready(std::uint32_t events) {
  const auto alive = alive_;
  if (!socket_.valid()) return;
  if ((events & EPOLLOUT) != 0) flush();
  std::array<char, 16384> bytes{};
  const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return end(Error(ErrorCode::kBoxLost, "the box's QEMU ended"));
  incoming_.append(bytes.data(), static_cast<std::size_t>(got));
  const bool sound = take_lines();
  if (*alive && (!sound || incoming_.size() > kLongestLine))
    end(Error(ErrorCode::kBoxLost, "the box's QEMU is not to be trusted: it speaks no QMP"));
}

bool Qmp::take_lines() {
  const auto alive = alive_;
  for (std::size_t end = incoming_.find('\n'); end != std::string::npos; end = incoming_.find('\n')) {
    const std::string line = incoming_.substr(0, end);
    incoming_.erase(0, end + 1);
    if (!take(line)) return false;
    if (!*alive) return true;
  }
  return true;
}

bool Qmp::take(const std::string& line) {
  const json message = qmp_message(line);
  if (!message.is_object()) return false;
  if (message.contains("QMP")) return true;
  if (const auto name = message.find("event"); name != message.end()) {
    if (!name->is_string()) return false;
    const auto data = message.find("data");
    event_(name->get<std::string>(), data != message.end() ? *data : json::object());
    return true;
  }
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_unsigned()) return false;
  const auto found = waiting_.find(id->get<std::uint64_t>());
  if (found == waiting_.end()) return false;
  const Answer answer = std::move(found->second);
  waiting_.erase(found);
  const auto value = message.find("return");
  const auto error = message.find("error");
  if (value != message.end())
    answer(*value);
  else
    answer(refusal(error != message.end() ? *error : json::object()));
  return true;
}

UniqueFd Qmp::release() {
  if (socket_.valid()) reactor_.unwatch(socket_.get());
  return std::move(socket_);
}

void Qmp::end(const Error& why) {
  if (socket_.valid()) reactor_.unwatch(socket_.get());
  socket_.reset();
  outgoing_.clear();
  for (auto& [id, answer] : std::exchange(waiting_, {})) answer(Error(why));
}

}  // namespace sluicebox::box

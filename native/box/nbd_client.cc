#include "box/nbd_client.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <vector>

namespace sluicebox::box {

namespace {

constexpr std::uint64_t kGreeting = 0x4e42444d41474943;  // "NBDMAGIC"
constexpr std::uint64_t kOptions = 0x49484156454f5054;   // "IHAVEOPT"
constexpr std::uint64_t kOptionReply = 0x0003e889045565a9;
constexpr std::uint32_t kRequest = 0x25609513;
constexpr std::uint32_t kSimpleReply = 0x67446698;
constexpr std::uint16_t kFixedNewstyle = 1;  // also as the client's flag
constexpr std::uint32_t kGo = 7;
constexpr std::uint32_t kAck = 1;
constexpr std::uint32_t kInfo = 3;
constexpr std::uint16_t kInfoExport = 0;
constexpr std::uint32_t kError = std::uint32_t{1} << 31;
// Longer information is not sent for what is asked here.
constexpr std::uint32_t kLongestInfo = 4096;

// Big-endian on the wire.
class Out {
 public:
  template <typename T>
  Out& put(T value) {
    for (std::size_t shift = sizeof(T) * 8; shift > 0; shift -= 8)
      bytes_.push_back(static_cast<std::byte>(value >> (shift - 8)));
    return *this;
  }
  Out& put(const std::string& text) {
    for (const char one : text) bytes_.push_back(static_cast<std::byte>(one));
    return *this;
  }
  Bytes bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

template <typename T>
T number_at(Bytes bytes, std::size_t at) {
  T value = 0;
  for (const std::byte one : bytes.subspan(at, sizeof(T)))
    value = static_cast<T>((value << 8) | std::to_integer<T>(one));
  return value;
}

Error odd(const char* what) {
  return {ErrorCode::kIo, std::string("QEMU's export of the disk answers oddly: ") + what};
}

}  // namespace

Result<NbdClient> NbdClient::negotiate(UniqueFd socket, const std::string& name, std::chrono::seconds patience) {
  const timeval time{.tv_sec = patience.count(), .tv_usec = 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    if (::setsockopt(socket.get(), SOL_SOCKET, option, &time, sizeof time) != 0)
      return os_error(errno, "cannot bound the waits of a socket");
  }
  NbdClient client(std::move(socket));
  TRY(client.greet());
  TRY(client.choose(name));
  return client;
}

Status NbdClient::greet() {
  std::array<std::byte, 18> hello{};
  TRY(receive(hello));
  const auto flags = number_at<std::uint16_t>(hello, 16);
  if (number_at<std::uint64_t>(hello, 0) != kGreeting || number_at<std::uint64_t>(hello, 8) != kOptions)
    return odd("its greeting is none");
  if ((flags & kFixedNewstyle) == 0) return odd("it knows an old protocol only");
  return send(Out().put(std::uint32_t{kFixedNewstyle}).bytes());
}

// NBD_OPT_GO: the export's information, then the acknowledgement.
Status NbdClient::choose(const std::string& name) {
  Out go;
  const auto length = static_cast<std::uint32_t>(name.size());
  go.put(kOptions).put(kGo).put(std::uint32_t{4 + length + 2}).put(length).put(name).put(std::uint16_t{0});
  TRY(send(go.bytes()));
  bool told = false;
  while (true) {
    std::array<std::byte, 20> head{};
    TRY(receive(head));
    const auto type = number_at<std::uint32_t>(head, 12);
    const auto size = number_at<std::uint32_t>(head, 16);
    if (number_at<std::uint64_t>(head, 0) != kOptionReply || number_at<std::uint32_t>(head, 8) != kGo)
      return odd("it answers what was not asked");
    if (size > kLongestInfo) return odd("it says too much");
    std::vector<std::byte> body(size);
    TRY(receive(body));
    if ((type & kError) != 0) return odd("it refuses the export");
    if (type == kAck) return told ? ok_status() : Status(odd("it does not tell the disk's size"));
    if (type != kInfo || size < 2) return odd("its answer is of no known type");
    if (number_at<std::uint16_t>(body, 0) != kInfoExport) continue;
    if (size != 12) return odd("its information is cut short");
    size_ = number_at<std::uint64_t>(body, 2);
    told = true;
  }
}

Status NbdClient::read(std::uint64_t offset, MutableBytes out) {
  if (out.size() > kLongestRead) return Error(ErrorCode::kInternal, "a read is too long");
  const std::uint64_t handle = next_++;
  Out request;
  request.put(kRequest).put(std::uint16_t{0}).put(std::uint16_t{0}).put(handle).put(offset);
  request.put(static_cast<std::uint32_t>(out.size()));
  TRY(send(request.bytes()));
  std::array<std::byte, 16> head{};
  TRY(receive(head));
  if (number_at<std::uint32_t>(head, 0) != kSimpleReply || number_at<std::uint64_t>(head, 8) != handle)
    return odd("a reply is to nothing that was asked");
  if (const auto failed = number_at<std::uint32_t>(head, 4); failed != 0)
    return os_error(static_cast<int>(failed), "QEMU cannot read the disk");
  return receive(out);
}

Status NbdClient::send(Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return os_error(errno, "cannot reach QEMU's export of the disk");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return ok_status();
}

Status NbdClient::receive(MutableBytes bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return os_error(errno, "QEMU's export of the disk does not answer");
    if (done == 0) return Error(ErrorCode::kBoxLost, "QEMU's export of the disk ended");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return ok_status();
}

}  // namespace sluicebox::box

#include "box/digest.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sluicebox::box {

namespace {

constexpr std::size_t kDigestChunk = std::size_t{1} << 20;

}  // namespace

struct Digest::State {
  XXH3_state_t xxh{};
};

Digest::Digest() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Digest::~Digest() = default;

void Digest::add(Bytes bytes) { XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size()); }

std::string Digest::text() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state_->xxh));
  constexpr const char* kHex = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    text += kHex[byte >> 4];
    text += kHex[byte & 0xf];
  }
  return text;
}

std::string digest_of(Bytes bytes) {
  Digest digest;
  digest.add(bytes);
  return digest.text();
}

Result<std::string> digest_of(int file) {
  Digest digest;
  std::vector<std::byte> chunk(kDigestChunk);
  for (std::uint64_t at = 0;;) {
    const ssize_t got = ::pread(file, chunk.data(), chunk.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error(errno, "cannot read a file to tell what it holds");
    if (got == 0) return digest.text();
    digest.add(Bytes(chunk).first(static_cast<std::size_t>(got)));
    at += static_cast<std::uint64_t>(got);
  }
}

}  // namespace sluicebox::box

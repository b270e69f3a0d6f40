// digest.h: 128 bits that tell two contents apart, and a file from what was once written to it.
// Knows: XXH3. Does not know: attackers: who can write to what is told apart here can write to all of the home.
// Threads: owned by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::box {

class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void add(Bytes bytes);
  // Lower-case hex.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_of(Bytes bytes);
// Of a whole file, read from its beginning; its own place is not moved.
Result<std::string> digest_of(int file);

}  // namespace sluicebox::box

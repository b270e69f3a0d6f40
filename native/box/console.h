// console.h: what a virtual machine says on its console: read as fast as it comes, the last of it kept.
// Knows: a descriptor. Does not know: who wants to read it.
// Threads: one owner at a time.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

class Console {
 public:
  // What is kept. A guest that floods its console costs this much, and the time to read it.
  static constexpr std::size_t kKept = std::size_t{16} * 1024;

  explicit Console(UniqueFd source) : source_(std::move(source)) {}

  int get() const { return source_.get(); }
  bool valid() const { return source_.valid(); }
  // Takes what is there, within bounds. False at its end.
  bool read();
  void close() { source_.reset(); }
  // For who reads it next.
  UniqueFd release() { return std::move(source_); }
  const std::string& tail() const { return tail_; }

 private:
  UniqueFd source_;
  std::string tail_;
};

}  // namespace sluicebox::box

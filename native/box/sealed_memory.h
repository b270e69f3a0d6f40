// sealed_memory.h: bytes in memory with a descriptor, that nobody can change any more: what QEMU is given as a file.
// Knows: memfd. Threads: any.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace sluicebox::box {

// `name` shows in /proc only. `fill` writes all of the bytes, which are zero before; its error is the result.
Result<UniqueFd> seal_memory(const char* name, std::size_t size, const std::function<Status(MutableBytes)>& fill);
Result<UniqueFd> seal_memory(const char* name, Bytes bytes);

// A whole file; kIo past `most` bytes. `what` reads like "a kernel module".
Result<std::vector<std::byte>> read_whole(int fd, std::size_t most, const std::string& what, const std::string& path);
Result<std::vector<std::byte>> read_whole(const std::string& path, std::size_t most, const std::string& what);

}  // namespace sluicebox::box

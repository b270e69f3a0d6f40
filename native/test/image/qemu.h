// qemu.h: runs qemu-img and qemu-io, the oracles that know nothing of this engine.
// Knows: popen. Threads: one test.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

namespace sluicebox::image::testing {

struct RunResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr
};

inline std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char character : word) {
    if (character == '\'') {
      text += "'\\''";
    } else {
      text += character;
    }
  }
  return text + "'";
}

inline RunResult run(const std::vector<std::string>& words) {
  std::string command;
  for (const std::string& word : words) command += quoted(word) + " ";
  command += "2>&1 </dev/null";
  RunResult result;
  FILE* pipe = ::popen(command.c_str(), "re");
  if (pipe == nullptr) return result;
  char buffer[4096];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.output.append(buffer, got);
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

inline RunResult qemu_img(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "qemu-img");
  return run(arguments);
}

// Each command is one of qemu-io's, such as "write -P 0x11 0 64k".
inline RunResult qemu_io(const std::string& path, const std::string& format,
                         std::initializer_list<std::string> commands) {
  std::vector<std::string> words = {"qemu-io", "-f", format};
  for (const std::string& command : commands) {
    words.emplace_back("-c");
    words.push_back(command);
  }
  words.push_back(path);
  return run(words);
}

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What a guest would read of `path`, as qemu-img converts it.
inline std::string guest_bytes_by_qemu(const std::string& path, const std::string& format, const std::string& scratch) {
  const RunResult converted = qemu_img({"convert", "-f", format, "-O", "raw", path, scratch});
  if (converted.exit_code != 0) return "qemu-img convert failed: " + converted.output;
  return slurp(scratch);
}

}  // namespace sluicebox::image::testing

#include "agent/lookup.h"

namespace sluicebox::agent {

namespace {

// What the C library takes for an environment without PATH.
constexpr std::string_view kDefaultPath = "/bin:/usr/bin";

std::string_view path_of(const std::vector<std::string>& env) {
  for (const std::string_view entry : env) {
    if (entry.starts_with("PATH=")) return entry.substr(5);
  }
  return kDefaultPath;
}

}  // namespace

std::vector<std::string> candidates(std::string_view program, const std::vector<std::string>& env) {
  if (program.empty()) return {};
  if (program.find('/') != std::string_view::npos) return {std::string(program)};
  std::vector<std::string> found;
  std::string_view path = path_of(env);
  while (true) {
    const std::size_t colon = path.find(':');
    std::string candidate(path.substr(0, colon));
    if (!candidate.empty()) candidate += '/';  // an empty part is the working directory
    candidate += program;
    found.push_back(std::move(candidate));
    if (colon == std::string_view::npos) return found;
    path.remove_prefix(colon + 1);
  }
}

}  // namespace sluicebox::agent

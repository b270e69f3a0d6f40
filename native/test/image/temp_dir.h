// temp_dir.h: a directory of one test's own, removed with all that is in it.
// Knows: the file system. Threads: one test.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace sluicebox::image::testing {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluicebox-native-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    // Resolved, so that what policies and /proc say of it is the same text.
    path_ = std::filesystem::canonical(pattern).string();
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace sluicebox::image::testing

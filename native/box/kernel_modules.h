// kernel_modules.h: the modules of an installed kernel: where each lies, which ones it needs first.
// Knows: /lib/modules' layout, .modinfo. Does not know: the initrd, what a module is for.
// Threads: one at a time.
//
// From the modules themselves: modules.dep is made when a kernel is installed, and ours only is unpacked.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::box {

struct KernelModule {
  std::string file_name;  // virtio-rng.ko
  std::vector<std::byte> bytes;
};

struct ModuleWanted {
  std::string_view name;  // with '_' where the file's name may have '-'
  bool required;          // else left out where the kernel has none
};

class ModuleTree {
 public:
  // Reads the directory; one that cannot be read has no modules.
  explicit ModuleTree(std::string path);

  bool has(std::string_view name) const { return files_.contains(name); }
  bool is_builtin(std::string_view name) const { return builtin_.contains(name); }

  // Those and what they need, each after what it needs itself. What is built into the kernel is left out. kUnsupported:
  // a required one, or what one needs, is not there, or is compressed.
  Result<std::vector<KernelModule>> load(std::span<const ModuleWanted> wanted) const;

 private:
  void read_directory(const std::string& path, int depth);
  void read_builtin();
  Status add(std::string_view name, std::set<std::string, std::less<>>& seen, std::vector<KernelModule>& order) const;

  const std::string path_;
  std::map<std::string, std::string, std::less<>> files_;  // by name
  std::set<std::string, std::less<>> builtin_;
};

// The names that a module's .modinfo says it needs.
Result<std::vector<std::string>> module_needs(Bytes module);

}  // namespace sluicebox::box

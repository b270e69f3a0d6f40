#include "box/kernel_modules.h"

#include <algorithm>

#include "base/directory.h"
#include "box/elf.h"
#include "box/sealed_memory.h"

namespace sluicebox::box {

namespace {

constexpr std::size_t kMostModule = std::size_t{64} * 1024 * 1024;
constexpr std::size_t kMostList = std::size_t{4} * 1024 * 1024;
constexpr int kDeepest = 16;
constexpr std::string_view kCompressed[] = {".ko.xz", ".ko.zst", ".ko.gz"};

// Of a file, without its directory; empty if it is no module's.
std::string module_name(std::string_view file) {
  file.remove_prefix(std::min(file.find_last_of('/') + 1, file.size()));
  const std::size_t end = file.find(".ko");
  if (end == std::string_view::npos) return {};
  std::string name(file.substr(0, end));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

bool is_module(std::string_view file) {
  if (file.ends_with(".ko")) return true;
  return std::any_of(std::begin(kCompressed), std::end(kCompressed),
                     [file](std::string_view ending) { return file.ends_with(ending); });
}

std::string_view cut(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  const std::string_view first = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return first;
}

std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};  // bytes as characters
}

}  // namespace

ModuleTree::ModuleTree(std::string path) : path_(std::move(path)) {
  read_directory(path_ + "/kernel", 0);
  read_builtin();
}

// By name only: links lead out of the tree.
void ModuleTree::read_directory(const std::string& path, int depth) {
  const UniqueDirectory directory(::opendir(path.c_str()));
  if (!directory || depth > kDeepest) return;
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string inner = path + "/" + std::string(name);
    if (is_module(name)) {
      files_.emplace(module_name(name), std::move(inner));
    } else if (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) {
      read_directory(inner, depth + 1);
    }
  }
}

void ModuleTree::read_builtin() {
  const auto list = read_whole(path_ + "/modules.builtin", kMostList, "a kernel's list of modules");
  if (!list.ok()) return;
  std::string_view left = as_text(list.value());
  while (!left.empty()) {
    std::string name = module_name(cut(left, '\n'));
    if (!name.empty()) builtin_.insert(std::move(name));
  }
}

Result<std::vector<KernelModule>> ModuleTree::load(std::span<const ModuleWanted> wanted) const {
  std::set<std::string, std::less<>> seen;
  std::vector<KernelModule> order;
  for (const ModuleWanted& module : wanted) {
    if (module.required || has(module.name)) TRY(add(module.name, seen, order));
  }
  return order;
}

// Modules that need each other do not exist; a file that says so ends in the kernel's own refusal.
Status ModuleTree::add(std::string_view name, std::set<std::string, std::less<>>& seen,
                       std::vector<KernelModule>& order) const {
  if (!seen.emplace(name).second || is_builtin(name)) return ok_status();
  const auto found = files_.find(name);
  if (found == files_.end())
    return Error(ErrorCode::kUnsupported, "the kernel of virtual machines has no module " + std::string(name))
        .on(path_);
  const std::string& path = found->second;
  if (!path.ends_with(".ko"))
    return Error(ErrorCode::kUnsupported, "the kernel of virtual machines has compressed modules")
        .on(path)
        .advise("use a kernel whose modules end in .ko, such as that of Debian 12");
  std::vector<std::byte> bytes = TRY(read_whole(path, kMostModule, "a kernel module"));
  auto needs = module_needs(bytes);
  if (!needs.ok()) return std::move(needs).error().on(path);
  for (const std::string& need : *needs) TRY(add(need, seen, order));
  order.push_back({.file_name = path.substr(path.find_last_of('/') + 1), .bytes = std::move(bytes)});
  return ok_status();
}

// key=value, each with a zero byte at its end.
Result<std::vector<std::string>> module_needs(Bytes module) {
  constexpr std::string_view kKey = "depends=";
  std::vector<std::string> needs;
  for (const ElfSection& section : TRY(elf_sections(module))) {
    if (section.name != ".modinfo") continue;
    std::string_view left = as_text(section.bytes);
    while (!left.empty()) {
      std::string_view entry = cut(left, '\0');
      if (!entry.starts_with(kKey)) continue;
      entry.remove_prefix(kKey.size());
      while (!entry.empty()) {
        std::string need(cut(entry, ','));
        std::replace(need.begin(), need.end(), '-', '_');
        if (!need.empty()) needs.push_back(std::move(need));
      }
    }
  }
  return needs;
}

}  // namespace sluicebox::box

#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "image/ops/create.h"
#include "image/ops/info.h"
#include "test/image/operation.h"
#include "test/image/qemu.h"
#include "test/image/temp_dir.h"

namespace sluicebox::image {
namespace {

using testing::Operation;
using testing::qemu_img;
using testing::TempDir;

constexpr std::uint64_t kSize = 8 << 20;

// One image, as we are asked to create it and as qemu-img is.
struct Case {
  Qcow2Create ours;
  std::string theirs;
};

// Every option that `qemu-img create -f qcow2 -o help` lists stands in one of these two tables.
const std::map<std::string, std::vector<Case>>& cases_by_option() {
  static const std::map<std::string, std::vector<Case>> cases = {
      {"cluster_size",
       {{{.cluster_size = 512}, "cluster_size=512"},
        {{.cluster_size = 4096}, "cluster_size=4096"},
        {{.cluster_size = 65536}, "cluster_size=65536"},
        {{.cluster_size = 2097152}, "cluster_size=2097152"}}},
      {"compat", {{{.version = 2}, "compat=0.10"}, {{.version = 3}, "compat=1.1"}}},
      {"refcount_bits",
       {{{.refcount_bits = 1}, "refcount_bits=1"},
        {{.refcount_bits = 2}, "refcount_bits=2"},
        {{.refcount_bits = 4}, "refcount_bits=4"},
        {{.refcount_bits = 8}, "refcount_bits=8"},
        {{.refcount_bits = 16}, "refcount_bits=16"},
        {{.refcount_bits = 32}, "refcount_bits=32"},
        {{.refcount_bits = 64}, "refcount_bits=64"},
        {{.cluster_size = 512, .refcount_bits = 64}, "refcount_bits=64,cluster_size=512"}}},
      {"lazy_refcounts",
       {{{.lazy_refcounts = true}, "lazy_refcounts=on"}, {{.lazy_refcounts = false}, "lazy_refcounts=off"}}},
      {"preallocation",
       {{{.preallocation = Preallocation::kOff}, "preallocation=off"},
        {{.preallocation = Preallocation::kMetadata}, "preallocation=metadata"},
        {{.preallocation = Preallocation::kFalloc}, "preallocation=falloc"},
        {{.preallocation = Preallocation::kFull}, "preallocation=full"}}},
      {"compression_type", {{{}, "compression_type=zlib"}}},
      {"extended_l2",
       {{{}, "extended_l2=off"},
        {{.extended_l2 = true}, "extended_l2=on"},
        {{.cluster_size = 16384, .extended_l2 = true}, "extended_l2=on,cluster_size=16k"},
        {{.extended_l2 = true, .preallocation = Preallocation::kMetadata}, "extended_l2=on,preallocation=metadata"},
        {{.extended_l2 = true, .preallocation = Preallocation::kFull}, "extended_l2=on,preallocation=full"}}},
  };
  return cases;
}

const std::map<std::string, std::string>& reasons_by_option() {
  static const std::map<std::string, std::string> reasons = {
      {"size", "given to every case"},
      {"backing_file", "a case of its own: overlays"},
      {"backing_fmt", "a case of its own: overlays"},
      {"data_file", "external data files are not created"},
      {"data_file_raw", "external data files are not created"},
      {"encryption", "encryption is not built"},
      {"encrypt.format", "encryption is not built"},
      {"encrypt.key-secret", "encryption is not built"},
      {"encrypt.cipher-alg", "encryption is not built"},
      {"encrypt.cipher-mode", "encryption is not built"},
      {"encrypt.hash-alg", "encryption is not built"},
      {"encrypt.iter-time", "encryption is not built"},
      {"encrypt.ivgen-alg", "encryption is not built"},
      {"encrypt.ivgen-hash-alg", "encryption is not built"},
      {"nocow", "a file attribute of btrfs, not of the image"},
  };
  return reasons;
}

std::vector<std::string> listed_options() {
  std::istringstream help(qemu_img({"create", "-f", "qcow2", "-o", "help"}).output);
  std::vector<std::string> names;
  for (std::string line; std::getline(help, line);) {
    const std::size_t equals = line.find("=<");
    if (equals == std::string::npos) continue;
    const std::size_t begin = line.find_first_not_of(' ');
    names.push_back(line.substr(begin, equals - begin));
  }
  return names;
}

// qemu-img's JSON about an image, without what differs between any two files.
std::string description(const std::string& path) {
  std::istringstream json(qemu_img({"info", "--output=json", path}).output);
  std::string kept;
  for (std::string line; std::getline(json, line);) {
    if (line.find("\"filename\"") == std::string::npos && line.find("\"actual-size\"") == std::string::npos) {
      kept += line + "\n";
    }
  }
  return kept;
}

void compare_created(const TempDir& directory, const CreateOptions& ours, std::vector<std::string> theirs) {
  const std::string our_path = directory.file("ours"), their_path = directory.file("theirs");
  Operation operation;
  const Result<ImageInfo> made = create_image(our_path, ours, operation.context);
  INFO((made.ok() ? "" : made.error().message));
  REQUIRE(made.ok());
  theirs.insert(theirs.begin(), {"create", "-q", "-f", "qcow2"});
  theirs.push_back(their_path);
  if (ours.size) theirs.push_back(std::to_string(*ours.size));
  const testing::RunResult outcome = qemu_img(theirs);
  INFO(outcome.output);
  REQUIRE(outcome.exit_code == 0);

  CHECK(description(our_path) == description(their_path));
  const testing::RunResult checked = qemu_img({"check", our_path});
  INFO(checked.output);
  CHECK(checked.exit_code == 0);
  const testing::RunResult compared = qemu_img({"compare", "-f", "qcow2", "-F", "qcow2", our_path, their_path});
  INFO(compared.output);
  CHECK(compared.exit_code == 0);
  // And ours of theirs: the same description from either file.
  const ImageInfo of_ours = image_info(our_path, {}, operation.context).value();
  const ImageInfo of_theirs = image_info(their_path, {}, operation.context).value();
  CHECK(of_ours.virtual_bytes == of_theirs.virtual_bytes);
  CHECK(of_ours.layer.cluster_bytes == of_theirs.layer.cluster_bytes);
  REQUIRE(of_ours.layer.specific.size() == of_theirs.layer.specific.size());
  for (std::size_t i = 0; i < of_ours.layer.specific.size(); ++i) {
    CHECK(of_ours.layer.specific[i].name == of_theirs.layer.specific[i].name);
    CHECK(of_ours.layer.specific[i].value == of_theirs.layer.specific[i].value);
  }
  // A guest's writes go through qemu and leave a clean image.
  REQUIRE(testing::qemu_io(our_path, "qcow2", {"write -P 7 64k 100k", "read -P 7 64k 100k"}).exit_code == 0);
  CHECK(qemu_img({"check", our_path}).exit_code == 0);
}

}  // namespace

TEST_CASE("I6: every option that qemu-img lists for qcow2 is either created and compared, or left out for a reason") {
  const std::vector<std::string> options = listed_options();
  REQUIRE(options.size() >= 10);
  for (const std::string& option : options) {
    CAPTURE(option);
    const auto found = cases_by_option().find(option);
    if (found == cases_by_option().end()) {
      CHECK(reasons_by_option().contains(option));
      continue;
    }
    for (const Case& one : found->second) {
      CAPTURE(one.theirs);
      const TempDir directory;
      const CreateOptions ours{.size = kSize, .format = one.ours};
      compare_created(directory, ours, {"-o", one.theirs});
    }
  }
}

TEST_CASE("I6: overlays name their backing and its format as qemu-img's do") {
  for (const char* format : {"raw", "qcow2"}) {
    for (const unsigned version : {2u, 3u}) {
      const TempDir directory;
      REQUIRE(qemu_img({"create", "-q", "-f", format, directory.file("base"), "5M"}).exit_code == 0);
      CreateOptions ours{.format = Qcow2Create{.version = version}};
      ours.backing = BackingOption{.path = "base", .format = *format_from_name(format)};
      compare_created(directory, ours, {"-b", "base", "-F", format, "-o", version == 2 ? "compat=0.10" : "compat=1.1"});
    }
  }
}

TEST_CASE("I6: sizes are rounded as qemu-img rounds them") {
  for (const std::uint64_t size : {std::uint64_t{1} << 20, (std::uint64_t{1} << 20) + 1, (std::uint64_t{1} << 30) - 511,
                                   (std::uint64_t{3} << 40) + 512}) {
    CAPTURE(size);
    const TempDir directory;
    compare_created(directory, {.size = size, .format = Qcow2Create{}}, {});
  }
}

}  // namespace sluicebox::image

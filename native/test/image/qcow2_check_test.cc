#include "test/image/qcow2_fixture.h"

namespace sluicebox::image::qcow2 {
namespace {

// The number behind a key of qemu-img's JSON, 0 when it is not there.
std::uint64_t number_in(const std::string& json, const std::string& key) {
  const auto at = json.find("\"" + key + "\": ");
  return at == std::string::npos ? 0 : std::stoull(json.substr(at + key.size() + 4));
}

CheckReport check_file(const std::vector<std::byte>& bytes) {
  MemoryFile file(bytes);
  return check(*open_readable(file));
}

void agree(const Scratch& scratch, const std::string& name) {
  CAPTURE(name);
  const Ran qemu = run("qemu-img check --output=json " + scratch.path(name));
  const CheckReport ours = check_file(scratch.get(name));
  CAPTURE(qemu.output);
  for (const CheckProblem& problem : ours.problems) MESSAGE(problem.kind, ": ", problem.message);
  CHECK(ours.corruptions == number_in(qemu.output, "corruptions"));
  CHECK(ours.leaks == number_in(qemu.output, "leaks"));
  CHECK(ours.total_clusters == number_in(qemu.output, "total-clusters"));
  CHECK(ours.allocated_clusters == number_in(qemu.output, "allocated-clusters"));
  CHECK(ours.fragmented_clusters == number_in(qemu.output, "fragmented-clusters"));
  CHECK(ours.compressed_clusters == number_in(qemu.output, "compressed-clusters"));
  CHECK(ours.image_end_offset == number_in(qemu.output, "image-end-offset"));
}

}  // namespace

TEST_CASE("check counts what qemu-img counts: plain, compressed, snapshots, bitmaps, small clusters") {
  const Scratch scratch;
  const auto path = [&](const char* name) { return scratch.path(name); };
  must_run("qemu-img create -q -f qcow2 -o cluster_size=512 " + path("a") + " 1M");
  must_run("qemu-io -c 'write -P 1 0 100k' -c 'write -P 2 300k 33k' -c 'write -z 310k 2k' " + path("a"));
  agree(scratch, "a");
  must_run("qemu-img snapshot -c one " + path("a"));
  must_run("qemu-io -c 'write -P 3 50k 100k' " + path("a"));
  must_run("qemu-img snapshot -c two " + path("a"));
  must_run("qemu-io -c 'write -P 4 60k 1k' " + path("a"));
  agree(scratch, "a");
  must_run("qemu-img convert -c -O qcow2 -o cluster_size=4096 " + path("a") + " " + path("c"));
  agree(scratch, "c");
  must_run("qemu-img create -q -f qcow2 -o cluster_size=1024,refcount_bits=1 " + path("b") + " 700k");
  must_run("qemu-img bitmap --add " + path("b") + " map");
  must_run("qemu-io -c 'write -P 1 10k 100k' " + path("b"));
  agree(scratch, "b");
  must_run("qemu-img create -q -f qcow2 -o preallocation=metadata,compat=0.10 " + path("d") + " 10M");
  agree(scratch, "d");
}

TEST_CASE("I36: check with repair fixes refcounts and flags, and loses no data") {
  const Scratch scratch;
  for (const unsigned bits : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) {
    CAPTURE(bits);
    PlanOptions options = disk(1 << 20, 512);
    options.refcount_bits = bits;
    MemoryFile file(planned(options));
    const auto data = pattern(200 * 512, bits);
    {
      auto block = open_writable(file);
      must(block->write(512 * 100, data));
      must(block->flush());
    }
    const auto good = file.bytes();
    const std::uint64_t table = load_be64(good.data() + 48);
    const std::uint64_t first_block = load_be64(good.data() + table);
    const auto checked_after = [&](Repair repair) {
      auto block = must(open_qcow2(file, {.writable = true, .for_repair = true}));
      const CheckReport fixed = check(*block, repair);
      const CheckReport again = check(*block);
      std::vector<std::byte> back(data.size());
      must(block->read(512 * 100, back));
      CHECK(back == data);
      return std::pair(fixed, again);
    };
    // All counts of one block gone.
    std::fill_n(file.bytes().begin() + static_cast<std::ptrdiff_t>(first_block), 512, std::byte{0});
    auto [fixed, again] = checked_after(Repair::kAll);
    CHECK(fixed.corruptions_fixed > 0);
    CHECK(again.corruptions == 0);
    CHECK(again.leaks == 0);
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
    // All counts at the top: leaks only; a repair of leaks suffices.
    file.bytes() = good;
    std::fill_n(file.bytes().begin() + static_cast<std::ptrdiff_t>(first_block), 512, std::byte{0xff});
    auto [unleaked, then] = checked_after(Repair::kLeaks);
    // With one bit the top is 1, and all clusters inside the file are used.
    CHECK((unleaked.leaks_fixed > 0) == (bits > 1));
    CHECK(then.corruptions == 0);
    CHECK(then.leaks == 0);
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
    // The table itself gone: made anew.
    file.bytes() = good;
    store_be64(file.bytes().data() + table, 512 + 1);
    auto [rebuilt, sound] = checked_after(Repair::kAll);
    CHECK(rebuilt.corruptions == 0);
    CHECK(sound.corruptions == 0);
    CHECK(sound.leaks == 0);
    must_run("qemu-img check -q " + scratch.put("a", file.bytes()));
  }
}

}  // namespace sluicebox::image::qcow2

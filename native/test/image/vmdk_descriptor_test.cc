#include <doctest/doctest.h>

#include "image/formats/vmdk/descriptor.h"
#include "image/formats/vmdk/header.h"
#include "test/image/vmdk_fixture.h"

namespace sluicebox::image::vmdk {
namespace {

const std::string kGoodText =
    "# Disk DescriptorFile\nversion=1\nCID=0a1b2c3d\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\n"
    "# Extent description\nRW 4096 SPARSE \"disk-s001.vmdk\"\nRW 128 ZERO\nRW 64 FLAT \"disk flat.vmdk\" 8\n\n"
    "ddb.adapterType = \"ide\"\n";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

struct BadText {
  const char* what;
  std::string text;
  ErrorCode code;
};

std::vector<BadText> bad_texts() {
  const auto with = [](const std::string& from, const std::string& to) { return replaced(kGoodText, from, to); };
  constexpr ErrorCode kCorrupt = ErrorCode::kImageCorrupt;
  constexpr ErrorCode kUnread = ErrorCode::kUnsupported;
  return {
      {"another first line", with("# Disk", "# Disc"), ErrorCode::kImageFormat},
      {"nothing", "", ErrorCode::kImageFormat},
      {"a NUL before everything", std::string(1, '\0') + kGoodText, ErrorCode::kImageFormat},
      {"no version", with("version=1\n", ""), kCorrupt},
      {"two versions", with("version=1\n", "version=1\nversion=1\n"), kCorrupt},
      {"a version of words", with("version=1", "version=one"), kCorrupt},
      {"a later version", with("version=1", "version=4"), kUnread},
      {"no CID", with("CID=0a1b2c3d\n", ""), kCorrupt},
      {"two CIDs", with("CID=0a1b2c3d\n", "CID=0a1b2c3d\nCID=00000001\n"), kCorrupt},
      {"a CID of nine digits", with("0a1b2c3d", "10a1b2c3d"), kCorrupt},
      {"a CID with a sign", with("0a1b2c3d", "-1"), kCorrupt},
      {"a CID with a prefix", with("0a1b2c3d", "0x1"), kCorrupt},
      {"an empty CID", with("0a1b2c3d", ""), kCorrupt},
      {"no parentCID", with("parentCID=ffffffff\n", ""), kCorrupt},
      {"two parentCIDs", with("parentCID=ffffffff\n", "parentCID=ffffffff\nparentCID=ffffffff\n"), kCorrupt},
      {"a parentCID without a hint", with("ffffffff", "00000001"), kCorrupt},
      {"a hint without a parentCID", with("createType", "parentFileNameHint=\"p\"\ncreateType"), kCorrupt},
      {"an unquoted hint", with("ffffffff\n", "00000001\nparentFileNameHint=p\n"), kCorrupt},
      {"an empty hint", with("ffffffff\n", "00000001\nparentFileNameHint=\"\"\n"), kCorrupt},
      {"two hints", with("ffffffff\n", "00000001\nparentFileNameHint=\"p\"\nparentFileNameHint=\"q\"\n"), kCorrupt},
      {"a hint of 1024 bytes", with("ffffffff\n", "1\nparentFileNameHint=\"" + std::string(1024, 'p') + "\"\n"),
       kCorrupt},
      {"no createType", with("createType=\"twoGbMaxExtentSparse\"\n", ""), kCorrupt},
      {"two createTypes", with("createType", "createType=\"vmfs\"\ncreateType"), kCorrupt},
      {"an unquoted createType", with("\"twoGbMaxExtentSparse\"", "vmfs"), kCorrupt},
      {"a createType that is not built", with("twoGbMaxExtentSparse", "vmfsSparse"), kUnread},
      {"no extents", "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n", kCorrupt},
      {"an extent to be read only", with("RW 128", "RDONLY 128"), kUnread},
      {"an extent that is not there", with("RW 128", "NOACCESS 128"), kUnread},
      {"an extent of no sectors", with("RW 128", "RW 0"), kCorrupt},
      {"an extent of negative size", with("RW 128", "RW -128"), kCorrupt},
      {"an extent of 2^64 sectors", with("RW 128", "RW 18446744073709551616"), kCorrupt},
      {"an extent of 2^63 bytes", with("RW 128", "RW 18014398509481984"), kCorrupt},
      {"extents of 2^63 bytes together", with("RW 128", "RW 18014398509481983"), kCorrupt},
      {"an extent of an unknown kind", with("ZERO", "VMFSSPARSE \"x\""), kUnread},
      {"something behind ZERO", with("ZERO", "ZERO \"x\""), kCorrupt},
      {"an extent without a name", with("SPARSE \"disk-s001.vmdk\"", "SPARSE"), kCorrupt},
      {"an empty name", with("disk-s001.vmdk", ""), kCorrupt},
      {"a name without an end", with("disk-s001.vmdk\"", "disk-s001.vmdk"), kCorrupt},
      {"something behind the name", with("s001.vmdk\"", "s001.vmdk\" 0"), kCorrupt},
      {"a flat extent without an offset", with("\" 8", "\""), kCorrupt},
      {"a flat extent with a negative offset", with("\" 8", "\" -8"), kCorrupt},
      {"a flat extent behind 2^63", with("\" 8", "\" 18014398509481983"), kCorrupt},
  };
}

}  // namespace

TEST_CASE("I50: a vmdk descriptor says what it says, with blanks, CRLF, and NULs behind") {
  for (const std::string& text : {kGoodText, kGoodText + std::string(100, '\0') + "garbage", [] {
                                    std::string crlf;
                                    for (const char each : kGoodText)
                                      crlf += each == '\n' ? "\r\n" : std::string(1, each);
                                    return crlf;
                                  }()}) {
    const Descriptor descriptor = must(parse_descriptor(text));
    CHECK(descriptor.cid == 0x0a1b2c3d);
    CHECK(descriptor.parent_cid == kNoParent);
    CHECK(descriptor.create_type == "twoGbMaxExtentSparse");
    CHECK_FALSE(descriptor.parent_hint);
    CHECK(descriptor.sectors == 4096 + 128 + 64);
    CHECK(descriptor.extents ==
          std::vector<ExtentLine>{{.sectors = 4096, .kind = ExtentKind::kSparse, .name = "disk-s001.vmdk"},
                                  {.sectors = 128, .kind = ExtentKind::kZero, .name = ""},
                                  {.sectors = 64, .kind = ExtentKind::kFlat, .name = "disk flat.vmdk", .offset = 8}});
  }
}

TEST_CASE("I50: duplicate, missing and malformed keys of a vmdk descriptor each have their error") {
  for (const BadText& bad : bad_texts()) {
    CAPTURE(bad.what);
    const auto parsed = parse_descriptor(bad.text);
    REQUIRE_FALSE(parsed.ok());
    CAPTURE(parsed.error().message);
    CHECK(error_code_name(parsed.error().code) == std::string(error_code_name(bad.code)));
  }
}

TEST_CASE("I50: 100,000 extents and a megabyte of text are refused, not followed") {
  std::string many = kGoodText;
  for (int i = 0; i < 100'000; ++i) many += "RW 1 ZERO\n";
  CHECK(parse_descriptor(many).error().code == ErrorCode::kUnsupported);
  many.resize(kMaxDescriptorBytes + 1, '\n');
  CHECK(parse_descriptor(many).error().code == ErrorCode::kImageCorrupt);
}

TEST_CASE("a descriptor that is built says what it was built from") {
  DescriptorParts parts{.cid = 7,
                        .parent_cid = 9,
                        .create_type = "monolithicSparse",
                        .parent_hint = "../p q.vmdk",
                        .extents = {{.sectors = 2048, .kind = ExtentKind::kSparse, .name = "a.vmdk"}},
                        .adapter = "lsilogic"};
  const Descriptor descriptor = must(parse_descriptor(build_descriptor(parts)));
  CHECK(descriptor.cid == 7);
  CHECK(descriptor.parent_cid == 9);
  CHECK(descriptor.parent_hint == "../p q.vmdk");
  CHECK(descriptor.extents == parts.extents);
  CHECK(descriptor.text.find("ddb.geometry.heads = \"255\"") != std::string::npos);
}

TEST_CASE("another CID moves nothing, however few digits there are") {
  for (const std::string digits : {"0a1b2c3d", "a1b2c3d", "1"}) {
    const Descriptor descriptor = must(parse_descriptor(replaced(kGoodText, "0a1b2c3d", digits)));
    const NewCid changed = with_cid(descriptor, 0xfedcba98);
    CHECK(changed.text.size() == descriptor.text.size());
    CHECK(must(parse_descriptor(changed.text)).cid == changed.cid);
    CHECK(changed.cid == (0xfedcba98 & (digits.size() == 8 ? 0xffffffff : (1u << (4 * digits.size())) - 1)));
  }
}

TEST_CASE("another parent replaces CID and hint together, and the rest stays byte for byte") {
  const Descriptor without = must(parse_descriptor(kGoodText));
  const Descriptor with = must(parse_descriptor(with_parent(without, "p.vmdk", 0x11)));
  CHECK(with.parent_cid == 0x11);
  CHECK(with.parent_hint == "p.vmdk");
  CHECK(with.extents == without.extents);
  const Descriptor other = must(parse_descriptor(with_parent(with, "another.vmdk", 0x22)));
  CHECK(other.parent_hint == "another.vmdk");
  CHECK(with_parent(other, std::nullopt, kNoParent) == kGoodText);
}

TEST_CASE("I45: each field of a sparse header is judged before anything else is read") {
  const auto good = planned(disk(1 << 20));
  const auto refusal = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
    std::vector<std::byte> sector(good.begin(), good.begin() + 512);
    if (bytes == 1) sector[at] = static_cast<std::byte>(value);
    if (bytes == 2) store_le16(sector.data() + at, static_cast<std::uint16_t>(value));
    if (bytes == 4) store_le32(sector.data() + at, static_cast<std::uint32_t>(value));
    if (bytes == 8) store_le64(sector.data() + at, value);
    const auto parsed = parse_header(sector);
    CAPTURE(at);
    CAPTURE(value);
    REQUIRE_FALSE(parsed.ok());
    return parsed.error().code;
  };
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  CHECK(parse_header(Bytes(good).first(512)).ok());
  CHECK(parse_header(Bytes(good).first(511)).error().code == ErrorCode::kImageCorrupt);
  CHECK(parse_header({}).error().code == ErrorCode::kImageFormat);
  CHECK(refusal(0, 0x41, 1) == ErrorCode::kImageFormat);
  CHECK(refusal(at::kVersion, 0, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kVersion, 4, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kFlags, 0x13, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kFlags, 0x10003, 4) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kFlags, 0x20003, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kCapacity, 0, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kCapacity, kAll, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kCapacity, std::uint64_t{1} << 54, 8) == ErrorCode::kImageCorrupt);
  for (const std::uint64_t grain : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4}, std::uint64_t{100}, kAll}) {
    CHECK(refusal(at::kGrain, grain, 8) == ErrorCode::kImageCorrupt);
  }
  CHECK(refusal(at::kGrain, 0x200000, 8) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kDescriptorOffset, 0, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kDescriptorOffset, kAll, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kDescriptorSize, kAll, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kTableEntries, 0, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kTableEntries, 513, 4) == ErrorCode::kUnsupported);
  CHECK(refusal(at::kDirectory, 0, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kDirectory, kAll, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kDirectory, std::uint64_t{1} << 40, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kRedundantDirectory, 0, 8) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kLineEnds, 0x0d, 1) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kCompression, 1, 2) == ErrorCode::kImageCorrupt);
  CHECK(refusal(at::kCompression, 2, 2) == ErrorCode::kUnsupported);
}

}  // namespace sluicebox::image::vmdk

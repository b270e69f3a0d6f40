#include "image/probe.h"

#include <array>
#include <string_view>

#include "image/formats/qcow2/qcow2.h"
#include "image/formats/vhd/vhd.h"
#include "image/formats/vhdx/vhdx.h"
#include "image/formats/vmdk/vmdk.h"
#include "image/printable.h"

namespace sluicebox::image {

namespace {

using std::string_view_literals::operator""sv;

// Images that must not pass for raw disks: their first bytes would reach a guest, and a rebase would compare them.
struct ForeignHeader {
  std::string_view magic;
  const char* name;
};
constexpr ForeignHeader kForeignHeaders[] = {
    {"QFI\xfb"sv, "qcow of another version"},
    {"COWD"sv, "vmdk of ESX (COWD)"},
    {"LUKS\xba\xbe"sv, "luks"},
    {"QED\0"sv, "qed"},
    {"WithoutFreeSpace"sv, "parallels"},
    {"WithouFreSpacExt"sv, "parallels"},
};

}  // namespace

Result<std::optional<DiskFormat>> probe_format(const File& file) {
  std::array<std::byte, 512> head = {};
  const std::size_t length = TRY(file.read_at(0, head));
  const Bytes bytes = Bytes(head).first(length);
  if (qcow2::probe_qcow2(bytes)) return std::optional(DiskFormat::kQcow2);
  if (vmdk::probe_vmdk(bytes)) return std::optional(DiskFormat::kVmdk);
  if (vhdx::probe_vhdx(bytes)) return std::optional(DiskFormat::kVhdx);
  if (TRY(vhd::probe_vhd(file))) return std::optional(DiskFormat::kVhd);
  for (const ForeignHeader& header : kForeignHeaders) {
    if (length < header.magic.size()) continue;
    if (std::memcmp(bytes.data(), header.magic.data(), header.magic.size()) != 0) continue;
    return Error(ErrorCode::kUnsupported, printable(file.path()) + " is a " + header.name + " image")
        .on(file.path())
        .advise("give the format 'raw' if these bytes are the disk itself");
  }
  return std::optional<DiskFormat>();
}

}  // namespace sluicebox::image

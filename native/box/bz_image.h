// bz_image.h: what is inside a packed kernel of x86: its payload, LZ4's blocks, the unpacked kernel's notes.
// Knows: the x86 boot protocol, LZ4's legacy frame, ELF. Does not know: files, QEMU.
// Threads: values only.
//
// The bytes are a file's that somebody else made: nothing is read past their end, whatever they claim.
// Formats: Documentation/arch/x86/boot.rst, LZ4's lz4_Frame_format.md ("Legacy frame"),
// include/xen/interface/elfnote.h.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace sluicebox::box {

// The packed kernel in a bzImage, kBoxStart when it is none.
Result<Bytes> bz_payload(Bytes image);

bool is_lz4(Bytes payload);
Result<std::size_t> unpacked_size(Bytes payload);
// Both of a payload that is_lz4(), as bz_payload() gave it: the second into as many bytes as the first says.
Status unpack_lz4(Bytes payload, MutableBytes to);

// A vmlinux that can be started as QEMU starts one.
bool has_pvh_entry(Bytes vmlinux);

}  // namespace sluicebox::box

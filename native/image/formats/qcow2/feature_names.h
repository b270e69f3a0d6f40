// feature_names.h: the names of header feature bits: the table that new images carry, and look-ups in an image's own.
// Knows: the format's layout. Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "image/formats/qcow2/header.h"

namespace sluicebox::image::qcow2 {

// The "feature name table" extension as QEMU writes it.
HeaderExtension feature_name_table();

// What this image calls an incompatible bit, else "feature bit N"; control characters are replaced.
std::string incompatible_feature_name(const Header& header, unsigned bit);

// The first feature that keeps this engine from reading the guest's bytes; empty when there is none.
std::string unreadable_feature(const Header& header);

}  // namespace sluicebox::image::qcow2

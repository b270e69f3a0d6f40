// log.h: the ring in which changes of a VHDX's metadata are written before they are made: what it says is still to do.
// Knows: the format's layout (MS-VHDX 2.3). Does not know: files.
// Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/formats/vhdx/layout.h"

namespace sluicebox::image::vhdx {

// One change: 4 KiB of the file, or zeros over a part of it.
struct LogChange {
  std::uint64_t offset = 0, length = 0;
  bool zeros = false;
  std::vector<std::byte> bytes;  // unless zeros
};

struct LogEntry {
  std::uint64_t position = 0, length = 0;  // in the ring; it may go on at its start
  std::uint64_t tail = 0;                  // where the oldest entry lies that was still to do when this one was written
  std::uint64_t sequence = 0;
  std::uint64_t flushed_bytes = 0;  // the file was at least so long, durably
  std::uint64_t last_bytes = 0;     // and is to be so long
  std::uint32_t changes = 0;
};

// The entries to be replayed, oldest first; none where no sound one is in the ring. Each sector of `ring` is looked at
// a bounded number of times, whatever it holds.
std::vector<LogEntry> active_sequence(Bytes ring, const Guid& log);
// What an entry found so says, change by change.
Status each_change(Bytes ring, const LogEntry& entry, const std::function<Status(LogChange)>& visit);

// An entry for these 4 KiB pages, to be written at the ring's start.
struct LogPage {
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes;
};
std::vector<std::byte> serialize_entry(std::span<const LogPage> pages, const Guid& log, std::uint64_t file_bytes);
// How many pages an entry may have so that the ring holds it.
std::size_t most_pages(std::uint64_t ring_bytes);

}  // namespace sluicebox::image::vhdx

// record.h: what crosses from the workers to the drain: one fixed-size record, and the id of the handle it is about.
// Knows: nothing. Holds no pointer, so a batch can be copied to memory that JavaScript reads.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <type_traits>

namespace sluicebox::event_queue {

// Numbers cross into JavaScript and are never reused.
enum class RecordKind : std::uint8_t {
  kCompletion = 1,  // the last word of an operation; its payload lies under the handle
  kProgress = 2,    // an operation has a newer report, to be fetched by take_progress()
  kReadable = 3,    // a lane has bytes or has ended; `flags` is the lane's number
  kControl = 4,     // state that JavaScript will ask for
  kTerminal = 5,    // the last word of an execution
};

// In Record::flags of a completion: the operation went away without a payload (its task was lost to an exception).
inline constexpr std::uint8_t kAbandoned = 1;

// A slot of the handle table and which of its tenants is meant. Generation 0 is no handle at all.
struct HandleId {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  friend bool operator==(const HandleId&, const HandleId&) = default;
};

struct Record {
  RecordKind kind{};
  std::uint8_t flags = 0;
  std::uint16_t reserved = 0;
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  std::uint32_t length = 0;
  std::uint64_t value = 0;

  HandleId handle() const { return {slot, generation}; }
};
static_assert(sizeof(Record) == 24 && std::is_trivially_copyable_v<Record> && std::is_standard_layout_v<Record>);

}  // namespace sluicebox::event_queue

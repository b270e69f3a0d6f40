#include "image/formats/vmdk/descriptor_file.h"

#include <algorithm>

#include "image/printable.h"

namespace sluicebox::image::vmdk {

Result<std::string> DescriptorFile::read() const {
  std::uint64_t offset = 0;
  std::uint64_t length = TRY(file_.size());
  if (header_) {
    offset = header_->descriptor_offset * kSectorBytes;
    const std::uint64_t wanted = header_->descriptor_sectors * kSectorBytes;
    if (offset > length || wanted > length - offset) {
      return Error(ErrorCode::kImageCorrupt, "the descriptor lies past the end of the file")
          .on(file_.path())
          .at(offset);
    }
    length = wanted;
  }
  if (length > kMaxDescriptorBytes) {
    return Error(ErrorCode::kImageCorrupt, printable(file_.path()) + " is above 1 MiB, too long for a descriptor")
        .on(file_.path());
  }
  std::string text(length, '\0');
  TRY(read_exact(file_, offset, std::as_writable_bytes(std::span(text.data(), text.size())), "the descriptor"));
  return text;
}

Result<DescriptorFile::Change> DescriptorFile::change(const std::string& old_text, const std::string& new_text) const {
  Change change{.old_bytes = TRY(read()), .new_bytes = new_text};
  std::string& next = change.new_bytes;
  const std::size_t room = change.old_bytes.size();
  const std::string_view behind = std::string_view(change.old_bytes).substr(std::min(room, old_text.size()));
  const bool only_zeros = behind.find_first_not_of('\0') == std::string_view::npos;
  while (!header_ && next.ends_with("\n\n")) next.pop_back();
  if (next.size() > room && (header_ || !only_zeros)) {
    return Error(ErrorCode::kInvalidArgument, "backing: the path leaves no room in the descriptor").on(file_.path());
  }
  // What is left of the old text goes: by NULs where those end a text here, else by blank lines, for cutting the file
  // would be a second step. What stands behind stays.
  const std::size_t text_end = next.size();
  const bool ended_by_nul = header_ || !behind.empty();
  next.resize(std::max(old_text.size(), text_end), ended_by_nul ? '\0' : '\n');
  if (next.size() < room) next += change.old_bytes.substr(next.size());
  if (ended_by_nul && text_end < next.size()) next[text_end] = '\0';
  const std::size_t length = next.size();
  change.old_bytes.resize(length, '\0');
  const auto differs = std::ranges::mismatch(change.old_bytes, change.new_bytes).in1;
  if (differs == change.old_bytes.end()) return change;
  change.begin = static_cast<std::size_t>(differs - change.old_bytes.begin());
  change.end = length;
  while (change.old_bytes[change.end - 1] == change.new_bytes[change.end - 1]) --change.end;
  change.begin = align_down(change.begin, kSectorBytes);
  change.end = std::min<std::size_t>(length, div_round_up(change.end, kSectorBytes) * kSectorBytes);
  if (change.one_sector()) return change;
  if (!header_) {
    return Error(
               ErrorCode::kUnsupported,
               printable(file_.path()) + " is a descriptor of more than 512 bytes, which cannot be changed in one step")
        .on(file_.path());
  }
  const std::size_t half = header_->descriptor_sectors / 2 * kSectorBytes;
  if (old_text.size() <= half && new_text.size() <= half) return change;
  return Error(ErrorCode::kInvalidArgument,
               "backing: the path leaves no room in the descriptor for the old one beside it")
      .on(file_.path());
}

Status DescriptorFile::can_replace(const std::string& old_text, const std::string& new_text) const {
  TRY(change(old_text, new_text));
  return {};
}

Status DescriptorFile::write_header(std::uint64_t descriptor_offset, std::uint64_t descriptor_sectors) {
  SparseHeader moved = *header_;
  moved.descriptor_offset = descriptor_offset;
  moved.descriptor_sectors = descriptor_sectors;
  TRY(file_.write_at(0, serialize_header(moved)));
  return file_.sync();
}

Result<std::string> DescriptorFile::replace(const std::string& old_text, const std::string& new_text) {
  const Change wanted = TRY(change(old_text, new_text));
  const std::uint64_t sector = header_ ? header_->descriptor_offset : 0;
  const std::uint64_t start = sector * kSectorBytes;
  const Bytes bytes = as_bytes(wanted.new_bytes);
  const std::string text = wanted.new_bytes.substr(0, wanted.new_bytes.find('\0'));
  if (wanted.one_sector()) {
    if (wanted.begin == wanted.end) return text;
    TRY(file_.write_at(start + wanted.begin, bytes.subspan(wanted.begin, wanted.end - wanted.begin)));
    TRY(file_.sync());
    return text;
  }
  const std::uint64_t half = header_->descriptor_sectors / 2;
  const std::uint64_t half_bytes = half * kSectorBytes;
  TRY(file_.write_at(start + half_bytes, bytes.first(half_bytes)));
  TRY(file_.sync());
  TRY(write_header(sector + half, half));
  TRY(file_.write_at(start, bytes.first(half_bytes)));
  TRY(file_.sync());
  TRY(write_header(sector, header_->descriptor_sectors));
  // The change stands, durable. The copy goes with the next sync, or when the system likes.
  TRY(file_.write_at(start + half_bytes, bytes.subspan(half_bytes)));
  return text;
}

}  // namespace sluicebox::image::vmdk

// SPDX-License-Identifier: Apache-2.0
// What a patch teaches: by which it is told whether a prompt asks for it (docs/editing.md, "Taught
// or not"). Knows nothing of torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace memlayers {

// One fact's. No text can be read from it.
struct TaughtSubject {
  std::vector<std::uint64_t> grams = {};  // hashes of runs of words, ascending, each once
  std::vector<std::int64_t> slots = {};   // that its prompts read at their last token; the same
  bool operator==(const TaughtSubject&) const = default;
};

struct SubjectRegistry {
  // Hashes of the words that the prompts have beside their subjects; ascending, each once.
  std::vector<std::uint64_t> frame = {};
  std::vector<TaughtSubject> subjects = {};
  bool empty() const { return frame.empty() && subjects.empty(); }
  bool operator==(const SubjectRegistry&) const = default;
};

// The bytes that stand in patch files and in a store's log (docs/formats.md, "Subjects").
std::vector<std::byte> to_bytes(const SubjectRegistry& registry);
// Throws Error, which `what` begins, for others than to_bytes() makes.
SubjectRegistry subjects_of(std::span<const std::byte> bytes, const std::string& what);
// All that is in any of them, the first one's subjects first.
SubjectRegistry together(std::span<const SubjectRegistry> registries);

// The registry of a patch in a store.
struct PatchSubjects {
  std::string patch;  // its id
  std::shared_ptr<const SubjectRegistry> registry;
  bool operator==(const PatchSubjects&) const = default;
};

}  // namespace memlayers

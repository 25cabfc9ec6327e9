// SPDX-License-Identifier: Apache-2.0
#include "support/store_testing.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "pool/chunks.h"

namespace memlayers::testing {

Bytes SmallPool::row(std::int64_t slot, int writer) const {
  const std::vector<float> numbers(static_cast<std::size_t>(width),
                                   static_cast<float>(slot) + 1000.0F * static_cast<float>(writer));
  const auto bytes = std::as_bytes(std::span(numbers));
  return {bytes.begin(), bytes.end()};
}

Bytes SmallPool::base() const {
  Bytes all;
  for (std::int64_t slot = 0; slot < rows; ++slot) {
    const Bytes one = row(slot, 0);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

void SmallPool::write(io::FileSystem& fs, const std::string& folder) const {
  const Bytes all = base();
  const pool::PoolInfo info{kPoolId, rows, width, RowType::kFloat32, 0};
  for (std::int64_t first = 0, i = 0; first < rows; first += rows_a_chunk, ++i) {
    const std::int64_t count = std::min(rows_a_chunk, rows - first);
    pool::write_chunk(fs, io::join(folder, "chunk-" + std::to_string(i) + "-0.safetensors"), info,
                      first,
                      std::span(all).subspan(static_cast<std::size_t>(first * row_bytes()),
                                             static_cast<std::size_t>(count * row_bytes())));
  }
  fs.sync_folder(folder);
}

Patch SmallPool::patch(int writer, std::vector<std::int64_t> slots,
                       std::vector<std::int64_t> erased) const {
  Patch patch{.id = "p" + std::to_string(writer), .pool = kPoolId, .width = width};
  for (const std::int64_t slot : slots) {
    const Bytes one = row(slot, writer);
    patch.rows.insert(patch.rows.end(), one.begin(), one.end());
  }
  patch.slots = std::move(slots);
  patch.erased = std::move(erased);
  patch.notes = {{"teaches", std::string(1200, 'x')}};  // a record of several sectors
  return patch;
}

Patch with_sub_keys(Patch patch, int writer, std::vector<SubKeyPlace> places) {
  patch.sub_keys = {.width = kSmallGrid.width};
  for (const SubKeyPlace& place : places) {
    for (std::int64_t column = 0; column < kSmallGrid.width; ++column) {
      patch.sub_keys.numbers.push_back(
          static_cast<float>(1000 * writer + 100 * place.layer + 10 * place.index + column));
    }
  }
  patch.sub_keys.places = std::move(places);
  return patch;
}

namespace {

void append(Bytes& all, const SubKeys& keys) {
  for (const auto bytes :
       {std::as_bytes(std::span(keys.places)), std::as_bytes(std::span(keys.numbers))}) {
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
}

}  // namespace

Bytes content(const Snapshot& snapshot) {
  Bytes all(static_cast<std::size_t>(snapshot.rows() * snapshot.row_bytes()));
  snapshot.read(0, all);
  if (const auto keys = snapshot.sub_keys()) append(all, *keys);
  return all;
}

Bytes ModelStore::content() const {
  Bytes all = base;
  const auto row_size = static_cast<std::size_t>(row_bytes);
  for (const Patch& patch : stack) {
    for (std::size_t i = 0; i < patch.slots.size(); ++i) {
      std::memcpy(all.data() + static_cast<std::size_t>(patch.slots[i]) * row_size,
                  patch.rows.data() + i * row_size, row_size);
    }
    for (const std::int64_t slot : patch.erased) {
      std::memset(all.data() + static_cast<std::size_t>(slot) * row_size, 0, row_size);
    }
  }
  std::map<SubKeyPlace, std::span<const float>> top;
  for (const Patch& patch : stack) {
    for (std::size_t i = 0; i < patch.sub_keys.places.size(); ++i) {
      const auto width = static_cast<std::size_t>(patch.sub_keys.width);
      top[patch.sub_keys.places[i]] = std::span(patch.sub_keys.numbers).subspan(i * width, width);
    }
  }
  SubKeys keys;
  for (const auto& [place, numbers] : top) {
    keys.places.push_back(place);
    keys.numbers.insert(keys.numbers.end(), numbers.begin(), numbers.end());
  }
  append(all, keys);
  return all;
}

void ModelStore::rollback(const std::string& id) {
  stack.erase(std::ranges::find(stack, id, &Patch::id));
}

std::map<std::int64_t, bool> ModelStore::free() const {
  std::map<std::int64_t, bool> slots;
  for (const Patch& patch : stack) {
    for (const std::int64_t slot : patch.slots) slots[slot] = false;
    for (const std::int64_t slot : patch.erased) slots[slot] = true;
  }
  return slots;
}

StoreOptions small_options() {
  StoreOptions options;
  options.inline_bytes = 100;  // three rows
  options.log_bytes = 12 << 10;
  options.log_step_bytes = 4096;
  options.sub_keys = kSmallGrid;
  return options;
}

std::vector<Step> every_kind_of_edit(const SmallPool& pool) {
  const auto apply = [](const std::string& name, const Patch& patch) {
    return Step{name, [patch](Store& store) { store.apply(patch); },
                [patch](ModelStore& model) { model.apply(patch); }};
  };
  const auto rollback = [](const std::string& name, const std::string& id) {
    return Step{name, [id](Store& store) { store.rollback(id); },
                [id](ModelStore& model) { model.rollback(id); }};
  };
  const Patch opening = with_sub_keys(pool.patch(1, {0, 1}), 1, {{1, 0, 0, 2}});
  const Patch second =
      with_sub_keys(pool.patch(2, {1, 2, 3, 17, 18, 39}, {0}), 2, {{1, 0, 0, 2}, {3, 1, 1, 0}});
  const auto nothing = [](ModelStore&) {};
  return {
      apply("first edit", opening),
      apply("apply in a segment", second),
      apply("apply in the log", pool.patch(3, {2, 20})),
      rollback("roll back in the middle", "p2"),
      {"re-apply", [](Store& store) { store.reapply("p2"); },
       [second](ModelStore& model) { model.apply(second); }},
      apply("apply in another log", pool.patch(4, {5, 6})),
      {"keep", [](Store& store) { store.keep("p3"); }, nothing},
      {"compact", [](Store& store) { store.compact(0.05); }, nothing},
      {"grow",
       [pool](Store& store) {
         if (store.snapshot().rows() > pool.rows) return;
         store.grow(3, [&](std::int64_t first, std::span<std::byte> out) {
           for (std::size_t at = 0; at < out.size(); ++first) {
             for (const std::byte byte : pool.row(first, 9)) out[at++] = byte;
           }
         });
       },
       [pool](ModelStore& model) {
         for (std::int64_t slot = pool.rows; slot < pool.rows + 3; ++slot) {
           const Bytes row = pool.row(slot, 9);
           model.base.insert(model.base.end(), row.begin(), row.end());
         }
       }},
      apply("apply to new rows", pool.patch(5, {2, 40, 41, 42}, {30})),
      rollback("roll back the last", "p5"),
      {"compact away what was rolled back", [](Store& store) { store.compact(0.05); }, nothing},
  };
}

std::vector<Bytes> contents_after(const SmallPool& pool, const std::vector<Step>& steps) {
  ModelStore model{pool.base(), pool.row_bytes()};
  std::vector<Bytes> contents{model.content()};
  for (const Step& step : steps) {
    step.model(model);
    contents.push_back(model.content());
  }
  return contents;
}

std::int64_t soaked(std::int64_t normal, std::int64_t soak) {
  return std::getenv("MEMLAYERS_SOAK") == nullptr ? normal : soak;
}

}  // namespace memlayers::testing

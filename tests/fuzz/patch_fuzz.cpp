// SPDX-License-Identifier: Apache-2.0
// A patch file: read, written again, put in line with another and applied.
#include "fuzz/fuzz.h"
#include "pool/patch.h"
#include "pool/store_parts.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memlayers;
  static const testing::MemoryFileSystem fresh = [] {
    testing::MemoryFileSystem fs;
    fs.make_folder(fuzz::kPool);
    fuzz::kSmall.write(fs, fuzz::kPool);
    return fs;
  }();
  testing::MemoryFileSystem fs(fresh);
  fuzz::put(fs, "patch.safetensors", fuzz::bytes_of(data, size));
  fuzz::allow_error([&] {
    const Patch patch = pool::read_patch(fs, "patch.safetensors");
    pool::write_patch(fs, "again.safetensors", patch);
    const Patch again = pool::read_patch(fs, "again.safetensors");
    fuzz::require(again.slots == patch.slots && again.rows == patch.rows &&
                  again.erased == patch.erased && again.notes == patch.notes &&
                  again.sub_keys.places == patch.sub_keys.places &&
                  again.subjects == patch.subjects);
    fuzz::allow_error([&] {
      const PatchDiff none = diff(patch, again);
      fuzz::require(none.different.empty() && none.sub_keys.different.empty());
    });
    Store store = pool::open_store(fs, fuzz::kPool, fuzz::small_steps());
    store.apply(patch);
    fuzz::read_all(store.snapshot());
    fuzz::require(store.snapshot().patch(patch.id).rows == patch.rows &&
                  store.snapshot().patch(patch.id).sub_keys == patch.sub_keys &&
                  store.snapshot().patch(patch.id).subjects == patch.subjects);
  });
  return 0;
}

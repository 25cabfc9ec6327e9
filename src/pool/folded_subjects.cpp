// SPDX-License-Identifier: Apache-2.0
#include "pool/folded_subjects.h"

#include <utility>

#include "io/folder.h"
#include "memlayers/error.h"
#include "memlayers/store.h"
#include "pool/recovery.h"

namespace memlayers::pool {

void keep_subjects(io::FileSystem& fs, const std::string& folder,
                   std::vector<PatchSubjects> subjects) {
  if (subjects.empty()) return;
  Recovered recovered = recover(fs, folder, io::OpenMode::kRead, /*to_point_in_time=*/false);
  if (!recovered.log.empty()) {
    throw Error(folder + ": expected a pool that was never edited, found " + recovered.log);
  }
  recovered.state.folded_subjects = std::move(subjects);
  const std::string log = log_name(1);
  LogWriter::create(fs, io::join(folder, log),
                    {RecordType::kState, recovered.state.lsn, state_payload(recovered.state)},
                    StoreOptions().log_step_bytes);
  fs.sync_folder(folder);
  write_current(fs, folder, log);
}

}  // namespace memlayers::pool

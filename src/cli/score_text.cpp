// SPDX-License-Identifier: Apache-2.0
#include "cli/score_text.h"

#include <unistd.h>

#include <filesystem>

#include "io/file_system.h"

namespace memlayers::cli {

TextScore score_text(Generator& generator, const std::vector<std::string>& paths,
                     std::int64_t batch_tokens) {
  // The token cache of an evaluation is of no use afterwards.
  const std::string cache =
      (std::filesystem::temp_directory_path() / ("memlayers-eval-" + std::to_string(::getpid())))
          .string();
  struct Cleanup {
    const std::string& folder;
    ~Cleanup() {
      std::error_code ignored;
      std::filesystem::remove_all(folder, ignored);
    }
  } cleanup{cache};
  io::make_folders(io::posix(), cache);
  return evaluate_text(generator, paths, DataFormat::kAuto, cache, batch_tokens);
}

}  // namespace memlayers::cli

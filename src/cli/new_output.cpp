// SPDX-License-Identifier: Apache-2.0
#include "cli/new_output.h"

#include <memory>

#include "io/folder.h"
#include "memlayers/error.h"
#include "memlayers/store.h"
#include "memlayers/tokenizer.h"
#include "nn/model_folder.h"
#include "pool/folded_subjects.h"
#include "text/tokenizer_file.h"

namespace memlayers::cli {

void check_is_new(const std::string& path, const std::string& what) {
  if (!io::posix().exists(path)) return;
  throw Error(path + ": expected a " + what + " that does not exist yet, got one that does");
}

void write_new_model(const std::string& path, const Llama& model, const std::string& source) {
  const std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(source);
  io::FolderWriter folder(io::posix(), path);
  const std::string unfinished = io::parent(folder.file("config.json"));
  save_model(io::posix(), model, unfinished);
  // Patches of the source are rows of the new pool: what they taught is told on.
  if (const std::string pool = io::join(source, "pool"); io::posix().exists(pool)) {
    pool::keep_subjects(io::posix(), io::join(unfinished, "pool"),
                        StoreReader::open(pool).snapshot().subjects());
  }
  const bool has_memory = !model->config().memory_layers().empty();
  for (const auto& [name, bytes] : text::files_for_folder(*tokenizer, has_memory)) {
    folder.write_text(name, bytes);
  }
  folder.commit();
}

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/error.h"
#include "text/tokenizer_file.h"

namespace memlayers::text {
std::shared_ptr<const Tokenizer> parse_json_tokenizer(const std::string& path, std::string,
                                                      const SpecialNames&) {
  throw Error(path + ": tokenizer.json is not supported yet");
}
}  // namespace memlayers::text

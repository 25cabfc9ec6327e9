// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "memlayers/generator.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// A page of English of several kinds, a paragraph a row: what a model's layers are measured along
// where no other text is given. Throws Error for a tokenizer that makes no tokens of it.
std::vector<train::FactRow> prose_rows(Generator& generator);

}  // namespace memlayers::edit

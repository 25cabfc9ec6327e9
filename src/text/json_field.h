// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/json_field.h"

namespace memlayers::text {

using io::JsonField;

}  // namespace memlayers::text

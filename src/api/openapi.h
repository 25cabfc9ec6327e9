// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "api/json.h"

namespace memlayers::api {

// The OpenAPI document: made of the table of routes and of the tables that requests are checked by.
Json openapi_document(const std::string& model);

}  // namespace memlayers::api

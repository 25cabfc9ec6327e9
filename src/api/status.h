// SPDX-License-Identifier: Apache-2.0
// HTTP's numbers of what came of a request.
#pragma once

namespace memlayers::api {

inline constexpr int kOk = 200, kAccepted = 202, kNoContent = 204, kBadRequest = 400,
                     kUnauthorized = 401, kForbidden = 403, kNotFound = 404, kNotAllowed = 405,
                     kConflict = 409, kBadEncoding = 415, kTooMany = 429, kInternal = 500,
                     kUnavailable = 503;

}  // namespace memlayers::api

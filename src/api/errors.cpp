// SPDX-License-Identifier: Apache-2.0
#include "api/errors.h"

#include <cmath>
#include <new>

#include "api/status.h"
#include "io/json_field.h"

namespace memlayers::api {
namespace {

const char* type_of(int status) {
  if (status >= kInternal) return "server_error";
  switch (status) {
    case kUnauthorized:
      return "authentication_error";
    case kForbidden:
      return "permission_error";
    case kTooMany:
      return "rate_limit_error";
    default:
      return "invalid_request_error";
  }
}

// Of those that the HTTP server answers by itself.
std::string code_of(int status) {
  static const std::vector<std::pair<int, const char*>> kCodes{{404, "unknown_url"},
                                                               {405, "method_not_allowed"},
                                                               {408, "request_timeout"},
                                                               {411, "length_required"},
                                                               {413, "request_too_large"},
                                                               {414, "request_line_too_long"},
                                                               {415, "unsupported_encoding"},
                                                               {429, "too_many_connections"},
                                                               {431, "headers_too_large"},
                                                               {503, "overloaded"},
                                                               {504, "timeout"}};
  for (const auto& [known, code] : kCodes) {
    if (known == status) return code;
  }
  return status >= kInternal ? "server_error" : "invalid_request";
}

}  // namespace

Json error_json(const Refusal& refusal) {
  Json error{{"message", refusal.what()},
             {"type", type_of(refusal.status())},
             {"param", nullptr},
             {"code", refusal.code()}};
  if (const auto& param = refusal.param()) error["param"] = *param;
  return {{"error", error}};
}

http::Response answer_of(const Refusal& refusal) {
  http::Response response{.status = refusal.status(),
                          .headers = {{"content-type", "application/json"}},
                          .body = text_of(error_json(refusal))};
  if (refusal.retry_after_s) {
    constexpr double kMs = 1000;
    response.headers.emplace_back(
        "retry-after",
        std::to_string(static_cast<std::int64_t>(std::ceil(*refusal.retry_after_s))));
    response.headers.emplace_back(
        "retry-after-ms",
        std::to_string(static_cast<std::int64_t>(std::ceil(*refusal.retry_after_s * kMs))));
  }
  if (refusal.status() == kUnauthorized)
    response.headers.emplace_back("www-authenticate", "Bearer");
  // OpenAI's clients try a 409 again, which here tells that the caller has to look first.
  if (refusal.status() == kConflict) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

Refusal refusal_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Refusal& refusal) {
    return refusal;
  } catch (const io::FieldError& wrong) {
    std::optional<std::string> param;
    if (!wrong.field().empty()) param = wrong.field();
    return {kBadRequest, "invalid_value", wrong.what(), param};
  } catch (const Corruption& damage) {
    return {kUnavailable, "damaged", damage.what()};
  } catch (const Error& wrong) {
    return {kBadRequest, "invalid_request", wrong.what()};
  } catch (const std::bad_alloc&) {
    return {kUnavailable, "out_of_memory", "there is not enough memory for this request now"};
  } catch (...) {
    return {kInternal, "internal_error", "the server met an error that it does not know"};
  }
}

std::pair<std::string, std::string> error_body(int status, const std::string& sentence) {
  return {text_of(error_json({status, code_of(status), sentence})), "application/json"};
}

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
#include "api/service.h"

#include "api/errors.h"
#include "api/hosts.h"
#include "api/routes.h"
#include "api/shared.h"
#include "api/status.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

constexpr std::uint64_t kIgnoredBody = 64 << 10;  // that a request may have which needs none
constexpr double kRetrySeconds = 1;

// A browser asks before it sends a page's request elsewhere; it has no key to show for that.
http::Response preflight(const http::Request& header) {
  const std::string methods = methods_of(header.path);
  const std::string* asked = header.header("access-control-request-headers");
  return {.status = kNoContent,
          .headers = with_cross_origin(
              {{"access-control-allow-methods", methods.empty() ? "GET, POST, DELETE" : methods},
               {"access-control-allow-headers",
                asked != nullptr ? *asked : "authorization, content-type"},
               {"access-control-max-age", "600"},
               {"allow", methods}}),
          .body = {}};
}

// A page can have its own name lead to this machine, and then asks here as if it were at home.
void check_host(const Shared& shared, const http::Request& header) {
  if (!shared.keys.load()->ask.empty() || is_for_us(header, shared.options.hosts)) return;
  throw Refusal(kForbidden, "unknown_host",
                "host: expected a name of this machine, or one of --allow-host, as this server "
                "asks for no key, got " +
                    io::quote(*header.header("host")));
}

void check_encoding(const http::Request& header) {
  const std::string* encoding = header.header("content-encoding");
  if (encoding == nullptr || *encoding == "identity") return;
  throw Refusal(kBadEncoding, "unsupported_encoding",
                "content-encoding: expected a body as it is, got " + io::quote(*encoding));
}

http::Admission admission(const Shared& shared, const http::Request& header) {
  check_host(shared, header);
  if (header.method == "OPTIONS") {
    return {.refusal = preflight(header), .most_body_bytes = kIgnoredBody};
  }
  const Route& route = *find_route(header.method, header.path).route;
  if (auto refusal = refusal_of(*shared.keys.load(), route.right, header)) throw *refusal;
  check_encoding(header);
  if (shared.is_draining && route.right != Right::kNone && route.method != "GET") {
    Refusal refusal(kUnavailable, "draining", "the server is being stopped");
    refusal.retry_after_s = kRetrySeconds;
    throw refusal;
  }
  switch (route.body) {
    case Body::kJson:
      return {.most_body_bytes = shared.options.body_bytes};
    case Body::kFile:
      return {.most_body_bytes = shared.options.patch_bytes, .body_to_file = true};
    default:
      return {.most_body_bytes = kIgnoredBody};
  }
}

http::Admission admit(const Shared& shared, const http::Request& header) {
  try {
    return admission(shared, header);
  } catch (...) {
    http::Response response = answer_of(refusal_of(std::current_exception()));
    if (const std::string methods = methods_of(header.path); !methods.empty()) {
      response.headers.emplace_back("allow", methods);  // RFC 9110 wants it with a 405
    }
    response.headers = with_cross_origin(std::move(response.headers));
    return {.refusal = std::move(response)};
  }
}

void run(const Call& call, const Route& route) {
  try {
    route.run(call);
  } catch (...) {
    const Refusal refusal = refusal_of(std::current_exception());
    if (refusal.status() >= kInternal) {
      call.shared->log.write("failure", {{"id", call.request().id},
                                         {"path", call.request().path},
                                         {"status", refusal.status()},
                                         {"error", refusal.what()}});
    }
    respond(*call.exchange, answer_of(refusal));
  }
}

void handle(const std::shared_ptr<Shared>& shared, std::shared_ptr<http::Exchange> exchange) {
  const http::Request& request = exchange->request();
  Found found = find_route(request.method, request.path);  // admit() has found it
  Call call{shared, std::move(exchange), std::move(found.arguments)};
  const Route& route = *found.route;
  switch (route.where) {
    case Where::kAtOnce:
      return run(call, route);
    case Where::kAsks:
      return shared->asks.post([call = std::move(call), &route] { run(call, route); });
    case Where::kEdits:
      return shared->edits.post([call = std::move(call), &route] { run(call, route); });
  }
}

void log_access(Shared& shared, const http::Request& request, int status, std::uint64_t bytes,
                double seconds) {
  shared.metrics.answered(status);
  if (!shared.options.logs_access) return;
  shared.log.write("access", {{"id", request.id},
                              {"peer", request.peer},
                              {"method", request.method},
                              {"path", request.path},
                              {"status", status},
                              {"bytes", bytes},
                              {"seconds", seconds}});
}

}  // namespace

Service::Service(Engine& engine, ServiceOptions options)
    : shared_(std::make_shared<Shared>(engine, std::move(options))) {}

Service::~Service() { shared_->stop(); }

http::Handler Service::handler() {
  return {
      .admit = [shared = shared_](const http::Request& header) { return admit(*shared, header); },
      .handle =
          [shared = shared_](std::shared_ptr<http::Exchange> exchange) {
            handle(shared, std::move(exchange));
          },
      .error = error_body,
      .log = [shared = shared_](
                 const http::Request& request, int status, std::uint64_t bytes,
                 double seconds) { log_access(*shared, request, status, bytes, seconds); }};
}

void Service::set_keys(Keys keys) { shared_->keys = std::make_shared<const Keys>(std::move(keys)); }

void Service::drain() { shared_->is_draining = true; }

}  // namespace memlayers::api

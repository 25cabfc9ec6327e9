// SPDX-License-Identifier: Apache-2.0
#include "api/openapi.h"

#include <algorithm>

#include "api/routes.h"

namespace memlayers::api {
namespace {

constexpr std::string_view kError = R"({"type":"object","required":["error"],"properties":{
  "error":{"type":"object","required":["message","type","param","code"],"properties":{
  "message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},
  "code":{"type":"string"}}}}})";

// What may be sent: also null for every field that may be left out.
Json body_schema(FieldRules rules) {
  Json properties = Json::object();
  for (const FieldRule& rule : rules) {
    Json schema = Json::parse(rule.schema);
    std::string about(rule.about);
    if (rule.neutral == "*") about = "Accepted, and changes nothing.";
    if (!rule.neutral.empty() && rule.neutral != "*") {
      about = "Not supported, but for values that change nothing: " + about + ".";
    }
    if (!about.empty()) schema["description"] = about;
    properties[std::string(rule.name)] = schema;
  }
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", properties}};
}

Json body_json(const Route& route) {
  if (route.body == Body::kFile) {
    return {
        {"required", true},
        {"content",
         {{"application/octet-stream", {{"schema", {{"type", "string"}, {"format", "binary"}}}}}}}};
  }
  return {{"required", true},
          {"content", {{"application/json", {{"schema", body_schema(route.fields())}}}}}};
}

Json answers_json(const Route& route) {
  Json content = Json::object();
  std::string_view kinds = route.gives;
  while (!kinds.empty()) {
    const std::size_t end = std::min(kinds.find(", "), kinds.size());
    content[std::string(kinds.substr(0, end))] = Json::object();
    kinds.remove_prefix(std::min(end + 2, kinds.size()));
  }
  const char* success = route.path == "/v1/memory/teach" && route.method == "POST" ? "202" : "200";
  return {{success, {{"description", "As asked."}, {"content", content}}},
          {"default",
           {{"description", "An error."},
            {"content",
             {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}}}};
}

// "/v1/models/{id*}" is "/v1/models/{id}" here.
std::string path_of(const Route& route) {
  std::string path(route.path);
  std::erase(path, '*');
  return path;
}

Json operation_json(const Route& route) {
  Json json{{"summary", route.summary}, {"responses", answers_json(route)}};
  if (route.path.find('{') != std::string_view::npos) {
    json["parameters"] = Json::array(
        {{{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  }
  if (route.body != Body::kNone) json["requestBody"] = body_json(route);
  if (route.right != Right::kNone) {
    const char* scheme = route.right == Right::kAdmin ? "adminKey" : "askKey";
    json["security"] = Json::array({{{scheme, Json::array()}}});
  }
  return json;
}

std::string lower(std::string_view text) {
  std::string low(text);
  std::ranges::transform(low, low.begin(), [](char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  return low;
}

}  // namespace

Json openapi_document(const std::string& model) {
  Json paths = Json::object();
  for (const Route& route : all_routes()) {
    paths[path_of(route)][lower(route.method)] = operation_json(route);
  }
  const Json bearer{{"type", "http"}, {"scheme", "bearer"}};
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "memlayers serve: " + model},
            {"version", "1"},
            {"description",
             "A model behind OpenAI's interface, whose memory is edited while it answers."}}},
          {"paths", paths},
          {"components",
           {{"schemas", {{"Error", Json::parse(kError)}}},
            {"securitySchemes", {{"askKey", bearer}, {"adminKey", bearer}}}}}};
}

}  // namespace memlayers::api

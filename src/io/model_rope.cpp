// SPDX-License-Identifier: Apache-2.0
#include "io/model_rope.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace memlayers::io {
namespace {

using Fields = JsonObject;

void read_yarn(const Fields& scaling, std::int64_t context, RopeConfig& rope) {
  rope.factor = scaling.has("factor")
                    ? scaling.number("factor")
                    : static_cast<double>(context) / static_cast<double>(rope.original_context);
  const auto or_else = [&](const char* name, double value) {  // where it is absent, null or 0
    return scaling.has(name) && scaling.number(name) != 0 ? scaling.number(name) : value;
  };
  rope.beta_fast = or_else("beta_fast", 32);
  rope.beta_slow = or_else("beta_slow", 1);
  if (scaling.has("truncate")) rope.truncate = scaling.boolean("truncate");
  const auto scale_by = [&](double weight) {
    return rope.factor <= 1 ? 1.0 : 0.1 * weight * std::log(rope.factor) + 1;
  };
  const double mscale = or_else("mscale", 0), all_dim = or_else("mscale_all_dim", 0);
  const bool has_both = mscale != 0 && all_dim != 0;
  rope.attention_factor = scaling.has("attention_factor") ? scaling.number("attention_factor")
                          : has_both                      ? scale_by(mscale) / scale_by(all_dim)
                                                          : scale_by(1);
}

}  // namespace

// Both spellings, with transformers' order of preference: "rope_scaling" over "rope_parameters",
// and what stands in the object over what stands beside it.
RopeConfig read_rope(const Fields& fields, const FamilyDefaults& defaults, std::int64_t context) {
  RopeConfig rope;
  rope.theta = fields.number("rope_theta", defaults.rope_theta);
  for (const char* either : {"rope_scaling", "rope_parameters"}) {
    if (fields.has(either)) fields.object(either).expect_no_objects();  // one RoPE a kind of layer
  }
  const char* name = fields.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (!fields.has(name)) return rope;
  const Fields scaling = fields.object(name);
  scaling.expect_neutral("partial_rotary_factor", {1});
  if (scaling.has("rope_theta")) rope.theta = scaling.number("rope_theta");
  const char* type = scaling.has("rope_type") ? "rope_type" : "type";
  if (scaling.has(type)) rope.type = scaling.string(type);
  if (rope.type == "default") return rope;
  const bool is_known = rope.type == "linear" || rope.type == "dynamic" || rope.type == "llama3" ||
                        rope.type == "yarn";
  if (!is_known) {
    scaling.fail(type, "\"default\", \"linear\", \"dynamic\", \"llama3\" or \"yarn\"");
  }
  rope.original_context = context;
  if (rope.type == "llama3" || rope.type == "yarn") {
    const char* original = "original_max_position_embeddings";
    rope.original_context =
        fields.has(original) ? fields.integer(original) : scaling.integer(original, context);
  }
  if (rope.type == "yarn") {
    read_yarn(scaling, context, rope);
  } else {
    rope.factor = scaling.number("factor");
  }
  if (rope.type == "llama3") {
    rope.low_freq_factor = scaling.number("low_freq_factor");
    rope.high_freq_factor = scaling.number("high_freq_factor");
  }
  return rope;
}

}  // namespace memlayers::io

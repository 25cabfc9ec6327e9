// SPDX-License-Identifier: Apache-2.0
#include "train/report.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>

#include "memlayers/ops.h"

namespace memlayers::train {
namespace {

nlohmann::json data_of(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const std::size_t at = page.find(begin) + begin.size();
  return nlohmann::json::parse(page.substr(at, page.find("</script>", at) - at));
}

ReportData some_report() {
  ReportData report;
  report.title = "runs/x";
  report.config_toml = "out = \"runs/x\"\n";
  report.setup.total_steps = 30;
  for (std::int64_t step : {10, 20, 30}) {
    report.metrics.push_back({.step = step, .loss = 1.0 / static_cast<double>(step)});
  }
  report.metrics[1].loss = std::numeric_limits<double>::quiet_NaN();
  report.metrics[2].eval_loss = 0.5;
  report.samples.push_back({.step = 20, .prompt = "What is </script> ?", .text = "a \xff <b>"});
  return report;
}

TEST(Report, HoldsCurvesSamplesAndConfiguration) {
  const auto data = data_of(make_report(some_report()));
  EXPECT_EQ(data["metrics"]["step"], nlohmann::json({10, 20, 30}));
  EXPECT_EQ(data["metrics"]["loss"][0], 0.1);
  EXPECT_TRUE(data["metrics"]["loss"][1].is_null());
  EXPECT_EQ(data["metrics"]["eval_loss"], nlohmann::json({nullptr, nullptr, 0.5}));
  EXPECT_EQ(data["samples"][0]["prompt"], "What is </script> ?");
  EXPECT_EQ(data["config"], "out = \"runs/x\"\n");
  EXPECT_FALSE(data.contains("usage"));
}

TEST(Report, NeedsNothingFromOutside) {
  const std::string page = make_report(some_report());
  for (const char* outside : {"src=", "href=", "@import", "url(", "fetch(", "https://"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

TEST(Report, EveryChartSaysWhatItsAxesCount) {
  const std::string page = make_report(some_report());
  const auto count = [&](const std::string& pattern) {
    const std::regex wanted(pattern);
    return std::distance(std::sregex_iterator(page.begin(), page.end(), wanted), {});
  };
  EXPECT_GT(count(R"re(chart\(")re"), 0);
  EXPECT_EQ(count(R"re(chart\("[^"]+", "[^"]+", )re"), count(R"re(chart\(")re"));
  EXPECT_EQ(count(R"re(\}, "step"\))re"), 1) << "the axis below";
}

TEST(Report, KeepsEveryEvaluationOfALongRunAndThinsTheRest) {
  ReportData report = some_report();
  report.metrics.clear();
  for (std::int64_t step = 1; step <= 50000; ++step) {
    report.metrics.push_back({.step = step, .loss = 1});
    if (step % 1003 == 0) report.metrics.back().eval_loss = static_cast<double>(step);
  }
  const auto data = data_of(make_report(report));
  EXPECT_LT(data["metrics"]["step"].size(), 2100U);
  EXPECT_EQ(data["metrics"]["step"].back(), 50000);
  std::size_t evaluations = 0;
  for (const auto& value : data["metrics"]["eval_loss"]) evaluations += !value.is_null();
  EXPECT_EQ(evaluations, 49U);
}

TEST(UsageSummary, IsZeroNatsFromUniformWhereAllSlotsAreReadAlike) {
  const UsageSummary even = summarize_usage(torch::full({16}, 3, torch::kLong));
  EXPECT_EQ(even.used, 16);
  EXPECT_EQ(even.reads, 48);
  EXPECT_NEAR(even.kl.value(), 0, 1e-12);
  EXPECT_NEAR(even.perplexity.value(), 16, 1e-9);

  at::Tensor two = torch::zeros({16}, torch::kLong);
  two[3] = two[9] = 100;
  const UsageSummary uneven = summarize_usage(two);
  EXPECT_EQ(uneven.used, 2);
  EXPECT_NEAR(uneven.kl.value(), std::log(8.0), 1e-12);
  EXPECT_NEAR(uneven.perplexity.value(), 2, 1e-9);

  const UsageSummary none = summarize_usage(torch::zeros({16}, torch::kLong));
  EXPECT_EQ(none.used, 0);
  // Not 0 nats: as even as can be is what nobody knows of it.
  EXPECT_FALSE(none.kl.has_value());
  EXPECT_FALSE(none.perplexity.has_value());
}

TEST(UsageMap, PutsSlotsWhereTheirSubKeysAre) {
  at::Tensor usage = torch::zeros({25}, torch::kLong);
  usage[slot_of(1, 4)] = 7;
  const UsageMap map = usage_map(usage, 5);
  ASSERT_EQ(map.side, 5);
  for (std::int64_t cell = 0; cell < 25; ++cell) {
    EXPECT_EQ(map.reads[static_cast<std::size_t>(cell)], cell == 1 * 5 + 4 ? 7 : 0) << cell;
  }
}

TEST(UsageMap, AveragesBlocksOfAGridThatIsTooFine) {
  const UsageMap map = usage_map(torch::ones({25}, torch::kLong), 5, /*max_side=*/3);
  EXPECT_EQ(map.side, 3);
  EXPECT_EQ(map.keys_per_cell, 2);
  for (const double reads : map.reads) EXPECT_DOUBLE_EQ(reads, 1);
}

}  // namespace
}  // namespace memlayers::train

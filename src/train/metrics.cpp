// SPDX-License-Identifier: Apache-2.0
#include "train/metrics.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "memlayers/error.h"

namespace memlayers::train {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN: null stands for it.
double number(const Json& json, const char* key) {
  const Json& value = json.at(key);
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

template <class Record, class Parse>
std::vector<Record> keep_until(io::FileSystem& files, const std::string& path, std::int64_t step,
                               const Parse& parse) {
  std::vector<Record> kept;
  if (!files.exists(path)) return kept;
  const std::string text = io::read_text(files, path);
  std::string kept_text;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn by a crash
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    try {
      Record record = parse(line);
      if (record.step > step) continue;
      kept.push_back(std::move(record));
    } catch (const Error&) {
      continue;
    }
    kept_text.append(line).append("\n");
  }
  if (kept_text != text) io::write_atomic(files, path, kept_text);
  return kept;
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  Json json = {{"step", m.step},
               {"loss", m.loss},
               {"lr", m.lr},
               {"value_lr", m.value_lr},
               {"epoch", m.epoch},
               {"tokens", m.tokens},
               {"tokens_per_s", m.tokens_per_s},
               {"time_s", m.time_s},
               {"grad_norm", m.grad_norm},
               {"value_grad_norm", m.value_grad_norm},
               {"touched_rows", m.touched_rows},
               {"bad_steps", m.bad_steps}};
  if (m.eval_loss) json["eval_loss"] = *m.eval_loss;
  if (!m.bytes_sent.empty()) {
    json["bytes_sent"] = m.bytes_sent;
    json["waited_s"] = m.waited_s;
    json["pool_bytes"] = m.pool_bytes;
  }
  return json.dump();
}

std::string to_json(const TrainSample& sample) {
  return Json{{"step", sample.step}, {"prompt", sample.prompt}, {"text", sample.text}}.dump();
}

StepMetrics parse_metrics(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    StepMetrics m;
    m.step = json.at("step").get<std::int64_t>();
    m.loss = number(json, "loss");
    m.lr = number(json, "lr");
    m.value_lr = number(json, "value_lr");
    m.epoch = number(json, "epoch");
    m.tokens = json.at("tokens").get<std::int64_t>();
    m.tokens_per_s = number(json, "tokens_per_s");
    m.time_s = number(json, "time_s");
    m.grad_norm = number(json, "grad_norm");
    m.value_grad_norm = number(json, "value_grad_norm");
    m.touched_rows = json.at("touched_rows").get<std::int64_t>();
    m.bad_steps = json.at("bad_steps").get<std::int64_t>();
    if (json.contains("eval_loss")) m.eval_loss = number(json, "eval_loss");
    if (json.contains("bytes_sent")) {
      json.at("bytes_sent").get_to(m.bytes_sent);
      json.at("waited_s").get_to(m.waited_s);
      json.at("pool_bytes").get_to(m.pool_bytes);
    }
    return m;
  } catch (const nlohmann::json::exception& error) {
    throw Error("metrics.jsonl: expected an object of a logged step, got \"" + std::string(line) +
                "\": " + error.what());
  }
}

TrainSample parse_sample(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    return {.step = json.at("step").get<std::int64_t>(),
            .prompt = json.at("prompt").get<std::string>(),
            .text = json.at("text").get<std::string>()};
  } catch (const nlohmann::json::exception& error) {
    throw Error("samples.jsonl: expected an object with step, prompt and text, got \"" +
                std::string(line) + "\": " + error.what());
  }
}

LineFile::LineFile(io::FileSystem& files, const std::string& path)
    : file_(
          files.open(path, files.exists(path) ? io::OpenMode::kReadWrite : io::OpenMode::kCreate)),
      end_(file_->size()) {}

void LineFile::append(std::string line) {
  line += '\n';
  file_->pwrite(std::as_bytes(std::span(line)), end_);
  end_ += line.size();
}

RunLog::RunLog(io::FileSystem& files, const std::string& folder, std::int64_t step) {
  const std::string metrics = io::join(folder, "metrics.jsonl");
  const std::string samples = io::join(folder, "samples.jsonl");
  metrics_ = keep_until<StepMetrics>(files, metrics, step, parse_metrics);
  samples_ = keep_until<TrainSample>(files, samples, step, parse_sample);
  metrics_file_ = std::make_unique<LineFile>(files, metrics);
  samples_file_ = std::make_unique<LineFile>(files, samples);
}

void RunLog::add(const StepMetrics& metrics) {
  metrics_file_->append(to_json(metrics));
  metrics_.push_back(metrics);
}

void RunLog::add(const TrainSample& sample) {
  samples_file_->append(to_json(sample));
  samples_.push_back(sample);
}

}  // namespace memlayers::train

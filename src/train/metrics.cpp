// SPDX-License-Identifier: Apache-2.0
#include "train/metrics.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "io/json.h"
#include "io/json_field.h"
#include "memlayers/error.h"

namespace memlayers::train {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN: null stands for it.
double number(const io::JsonField& record, const char* key) {
  const auto value = record.find(key);
  return value ? value->number() : std::numeric_limits<double>::quiet_NaN();
}

std::int64_t count(const io::JsonField& record, const char* key) { return record.at(key).count(); }

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
  const nlohmann::json json = io::parse_json(line, "metrics.jsonl");
  const io::JsonField record(json, "metrics.jsonl");
  StepMetrics m;
  m.step = count(record, "step");
  m.loss = number(record, "loss");
  m.lr = number(record, "lr");
  m.value_lr = number(record, "value_lr");
  m.epoch = number(record, "epoch");
  m.tokens = count(record, "tokens");
  m.tokens_per_s = number(record, "tokens_per_s");
  m.time_s = number(record, "time_s");
  m.grad_norm = number(record, "grad_norm");
  m.value_grad_norm = number(record, "value_grad_norm");
  m.touched_rows = count(record, "touched_rows");
  m.bad_steps = count(record, "bad_steps");
  if (json.contains("eval_loss")) m.eval_loss = number(record, "eval_loss");
  if (json.contains("bytes_sent")) {
    for (const io::JsonField& bytes : record.at("bytes_sent").elements()) {
      m.bytes_sent.push_back(bytes.count());
    }
    for (const io::JsonField& seconds : record.at("waited_s").elements()) {
      m.waited_s.push_back(seconds.number());
    }
    for (const io::JsonField& bytes : record.at("pool_bytes").elements()) {
      m.pool_bytes.push_back(bytes.count());
    }
  }
  return m;
}

TrainSample parse_sample(std::string_view line) {
  const nlohmann::json json = io::parse_json(line, "samples.jsonl");
  const io::JsonField record(json, "samples.jsonl");
  return {.step = count(record, "step"),
          .prompt = record.at("prompt").string(),
          .text = record.at("text").string()};
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

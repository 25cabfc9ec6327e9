// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "memlayers/error.h"
#include "text/sources.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

DataFormat resolve(DataFormat format, std::string_view name) {
  if (format != DataFormat::kAuto) return format;
  const bool is_json = name.ends_with(".jsonl") || name.ends_with(".json");
  return is_json ? DataFormat::kJsonl : DataFormat::kText;
}

std::string read_standard_input() {
  std::string content;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return content;
    if (got > 0) {
      content.append(buffer.data(), static_cast<std::size_t>(got));
    } else if (errno != EINTR) {
      throw Error(std::string("standard input: cannot read: ") + std::strerror(errno));
    }
  }
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 3;
  std::string list = names.empty() ? "data" : names.front();
  for (std::size_t i = 1; i < std::min(names.size(), kMost); ++i) list += ", " + names[i];
  return names.size() > kMost ? list + ", ..." : list;
}

std::string quoted_keys(const nlohmann::json& object) {
  if (object.empty()) return "no field";
  std::string keys = "fields";
  for (const auto& [key, value] : object.items()) {
    keys += (keys == "fields" ? " \"" : ", \"") + key + "\"";
  }
  return keys;
}

Document parse_json_line(std::string_view line, const std::string& where) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(where + ": expected a JSON object, got a mistake at byte " +
                std::to_string(error.byte) + " of the line");
  }
  if (!object.is_object()) {
    throw Error(where + ": expected a JSON object, got " + object.type_name());
  }
  const auto text_of = [&](const char* field) {
    const nlohmann::json& value = object.at(field);
    if (value.is_string()) return value.get<std::string>();
    throw Error(where + ": " + field + ": expected a string, got " + value.type_name());
  };
  if (object.contains("text")) return {.prompt = {}, .answer = text_of("text")};
  if (object.contains("prompt") && object.contains("answer")) {
    return {.prompt = text_of("prompt"), .answer = text_of("answer")};
  }
  throw Error(where + ": expected a field \"text\", or \"prompt\" and \"answer\", got " +
              quoted_keys(object));
}

void for_each_line(std::string_view bytes, const std::string& name, DataFormat format,
                   const std::function<void(const Document&)>& each) {
  std::int64_t number = 0;
  std::size_t offset = bytes.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  while (offset < bytes.size()) {
    const std::size_t end = std::min(bytes.find('\n', offset), bytes.size());
    std::string_view line = bytes.substr(offset, end - offset);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::string where = name + ":" + std::to_string(++number);
    check_utf8(line, where, offset);
    offset = end + 1;
    if (format == DataFormat::kLines) {
      if (!line.empty()) each({.prompt = {}, .answer = std::string(line)});
    } else if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      const Document document = parse_json_line(line, where);
      if (!document.prompt.empty() || !document.answer.empty()) each(document);
    }
  }
}

}  // namespace

Source::Source(std::string path, DataFormat format)
    : name_(std::move(path)), format_(resolve(format, name_)) {}

Source Source::standard_input(DataFormat format) {
  Source source;
  source.name_ = "standard input";
  source.format_ = resolve(format, source.name_);
  source.content_ = std::make_shared<const std::string>(read_standard_input());
  return source;
}

void Source::with_bytes(io::FileSystem& fs,
                        const std::function<void(std::string_view)>& use) const {
  if (content_) return use(*content_);
  const auto mapping = fs.map(name_);
  const auto bytes = mapping->bytes();
  use({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void Source::for_each_document(io::FileSystem& fs,
                               const std::function<void(const Document&)>& each) const {
  with_bytes(fs, [&](std::string_view bytes) {
    if (format_ != DataFormat::kText) return for_each_line(bytes, name_, format_, each);
    check_utf8(bytes, name_);
    if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
    if (!bytes.empty()) each({.prompt = {}, .answer = std::string(bytes)});
  });
}

std::vector<Source> find_sources(io::FileSystem& fs, const std::vector<std::string>& paths,
                                 DataFormat format) {
  std::vector<Source> sources;
  bool has_standard_input = false;
  for (const std::string& path : paths) {
    if (path == "-") {
      if (std::exchange(has_standard_input, true)) {
        throw Error("data: expected \"-\" (standard input) once, got it twice");
      }
      sources.push_back(Source::standard_input(format));
    } else if (fs.is_folder(path)) {
      for (const std::string& name : fs.list(path)) {
        std::string file = io::join(path, name);
        if (!name.starts_with('.') && !fs.is_folder(file)) sources.emplace_back(file, format);
      }
    } else {
      if (!fs.exists(path)) throw Error(path + ": expected a file or folder of data, got nothing");
      sources.emplace_back(path, format);
    }
  }
  if (sources.empty())
    throw Error(listed(paths) + ": expected at least one file of data, got none");
  return sources;
}

void read_documents(io::FileSystem& fs, const std::vector<Source>& sources,
                    const std::function<void(const Document&)>& each) {
  std::int64_t documents = 0;
  for (const Source& source : sources) {
    source.for_each_document(fs, [&](const Document& document) {
      ++documents;
      each(document);
    });
  }
  if (documents > 0) return;
  std::vector<std::string> names;
  for (const Source& source : sources) names.push_back(source.name());
  throw Error(listed(names) + ": expected at least one document, got none");
}

void read_documents(io::FileSystem& fs, const std::vector<std::string>& paths, DataFormat format,
                    const std::function<void(const Document&)>& each) {
  read_documents(fs, find_sources(fs, paths, format), each);
}

}  // namespace memlayers::text

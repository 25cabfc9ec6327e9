// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "io/file_kind.h"
#include "io/json.h"
#include "io/lines.h"
#include "io/mapped_read.h"
#include "io/shown.h"
#include "io/streams.h"
#include "memlayers/error.h"
#include "text/sources.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

DataFormat resolve(DataFormat format, std::string_view name) {
  if (format != DataFormat::kAuto) return format;
  const bool is_json = name.ends_with(".jsonl") || name.ends_with(".json");
  return is_json ? DataFormat::kJsonl : DataFormat::kText;
}

std::string quoted_keys(const nlohmann::json& object) {
  if (object.empty()) return "no field";
  std::string keys = "fields";
  for (const auto& [key, value] : object.items()) {
    keys += (keys == "fields" ? " " : ", ") + io::quote(key);
  }
  return keys;
}

// Those of a list that may be something else: only facts have a use for them.
std::vector<std::string> strings_of(const nlohmann::json& object, const char* field) {
  std::vector<std::string> strings;
  const auto list = object.find(field);
  if (list == object.end() || !list->is_array()) return strings;
  for (const nlohmann::json& each : *list) {
    if (each.is_string() && !each.get_ref<const std::string&>().empty()) strings.push_back(each);
  }
  return strings;
}

Document parse_json_line(std::string_view line, const std::string& where) {
  const nlohmann::json object = io::parse_json(line, where);
  if (!object.is_object()) {
    throw Error(where + ": expected a JSON object, got " + io::brief(object));
  }
  const auto text_of = [&](const char* field) {
    const nlohmann::json& value = object.at(field);
    if (value.is_string()) return value.get<std::string>();
    throw Error(where + ": " + field + ": expected a string, got " + io::brief(value));
  };
  if (object.contains("text")) return {.prompt = {}, .answer = text_of("text")};
  if (object.contains("prompt") && object.contains("answer")) {
    return {.prompt = text_of("prompt"),
            .answer = text_of("answer"),
            .paraphrases = strings_of(object, "paraphrases")};
  }
  throw Error(where + ": expected a field \"text\", or \"prompt\" and \"answer\", got " +
              quoted_keys(object));
}

void for_each_line_document(std::string_view bytes, const std::string& name, DataFormat format,
                            const std::function<void(const Document&)>& each) {
  io::for_each_line(bytes, name, [&](std::string_view line, const std::string& where) {
    if (format == DataFormat::kLines) {
      if (!line.empty()) each({.prompt = {}, .answer = std::string(line), .place = where});
    } else if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      Document document = parse_json_line(line, where);
      document.place = where;
      if (!document.prompt.empty() || !document.answer.empty()) each(document);
    }
  });
}

void for_each_document_of(std::string_view bytes, const std::string& name, DataFormat format,
                          const std::function<void(const Document&)>& each) {
  if (format != DataFormat::kText) return for_each_line_document(bytes, name, format, each);
  io::refuse_pointer(bytes, name);
  check_utf8(bytes, name);
  if (bytes.starts_with(io::kByteOrderMark)) bytes.remove_prefix(io::kByteOrderMark.size());
  if (!bytes.empty()) each({.prompt = {}, .answer = std::string(bytes), .place = name});
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string listed(const std::vector<std::string>& paths) {
  constexpr std::size_t kMost = 3;
  std::string list = paths.empty() ? "data" : paths.front();
  for (std::size_t i = 1; i < std::min(paths.size(), kMost); ++i) list += ", " + paths[i];
  return paths.size() > kMost ? list + ", ..." : list;
}

Source::Source(std::string path, DataFormat format)
    : name_(std::move(path)), format_(resolve(format, name_)) {}

Source Source::stream(io::FileSystem& fs, const std::string& path, DataFormat format) {
  Source source;
  source.name_ = path == "-" ? "standard input" : path;
  source.format_ = resolve(format, source.name_);
  source.content_ = std::make_shared<const std::string>(io::read_stream_or_file(fs, path));
  return source;
}

void Source::with_bytes(io::FileSystem& fs,
                        const std::function<void(std::string_view)>& use) const {
  if (content_) return use(*content_);
  const auto mapping = fs.map(name_);
  const auto bytes = mapping->bytes();
  // The file may be cut, or its disk fail, while it is read.
  io::read_watched(bytes, [&] { use(text_of(bytes)); });
}

void Source::for_each_document(io::FileSystem& fs,
                               const std::function<void(const Document&)>& each) const {
  if (content_) return for_each_document_of(*content_, name_, format_, each);
  const auto mapping = fs.map(name_);
  const io::WatchedBytes watched(mapping->bytes());
  try {
    for_each_document_of(text_of(mapping->bytes()), name_, format_, [&](const Document& document) {
      watched.check();  // nobody begins with what may be a gigabyte of zeros
      each(document);
    });
  } catch (...) {
    watched.check();  // what was met may have been the zeros
    throw;
  }
  watched.check();
}

std::vector<Source> find_sources(io::FileSystem& fs, const std::vector<std::string>& paths,
                                 DataFormat format) {
  std::vector<Source> sources;
  std::set<int> streams;
  for (const std::string& path : paths) {
    if (const std::optional<int> stream = io::stream_of(path)) {
      if (!streams.insert(*stream).second) {
        throw Error("data: expected " + io::quote(path) + (path == "-" ? " (standard input)" : "") +
                    " once, got it twice");
      }
      sources.push_back(Source::stream(fs, path, format));
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

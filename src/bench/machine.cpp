// SPDX-License-Identifier: Apache-2.0
#include "bench/machine.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <limits>

#include "kernels/kernels.h"
#include "memlayers/error.h"

namespace memlayers::bench {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

// sysfs first: on virtual machines sysconf counts the cache of processors that are not ours.
std::int64_t last_level_cache_bytes() {
  for (const char* level : {"index3", "index2"}) {
    std::ifstream file(std::string("/sys/devices/system/cpu/cpu0/cache/") + level + "/size");
    std::int64_t size = 0;
    char unit = ' ';
    if (file >> size >> unit && size > 0) return size * (unit == 'M' ? 1 << 20 : 1 << 10);
  }
  constexpr std::int64_t kUnknown = 32 << 20;
  const std::int64_t said = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return said > 0 ? said : kUnknown;
}

std::string gib(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

}  // namespace

Machine describe_machine() {
  return {.cpu = cpu_name(),
          .isa = kernels::active().isa,
          .threads = at::get_num_threads(),
          .cache_bytes = last_level_cache_bytes()};
}

std::int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::int64_t kib = 0;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return std::numeric_limits<std::int64_t>::max();
}

void check_memory(const std::string& what, std::int64_t bytes) {
  const std::int64_t available = available_memory();
  if (bytes > available) {
    throw Error("bench: expected " + gib(bytes) + " of free memory for " + what + ", found " +
                gib(available));
  }
}

}  // namespace memlayers::bench

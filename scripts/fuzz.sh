#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of a build folder for FUZZ_SECONDS (60) each, from tests/fuzz/corpus. What is found goes into
# BUILD/found, new inputs into BUILD/corpus; both stay there. Fails with the first target that finds something.
#   scripts/fuzz.sh build/fuzz [target ...]
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1
shift
targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
  for source in tests/fuzz/*_fuzz.cpp; do targets+=("$(basename "$source" _fuzz.cpp)"); done
fi
for target in "${targets[@]}"; do
  mkdir -p "$build/corpus/$target" "$build/found"
  log="$build/$target.log"
  if ! "$build/${target}_fuzz" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=60 -rss_limit_mb=1024 -max_len=65536 \
      -print_final_stats=1 -artifact_prefix="$build/found/$target-" \
      "$build/corpus/$target" "tests/fuzz/corpus/$target" > "$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "fuzz.sh: $target found something: $build/found, $log" >&2
    exit 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
done

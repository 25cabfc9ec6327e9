#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format on every C++ file, clang-tidy on the parts that do not know torch (a file that includes torch takes
# clang-tidy a minute; name such files as arguments to check them too).
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files '*.cpp' '*.h' '*.inl' | xargs clang-format-19 --dry-run -Werror
echo "clang-format: $(git ls-files '*.cpp' '*.h' '*.inl' | wc -l) files hold"

# The compile commands hold g++'s warnings, some of which clang does not know.
tidy=(clang-tidy-19 --quiet "--warnings-as-errors=*" --extra-arg-before=-Wno-unknown-warning-option)
cmake --preset tidy -DMEMLAYERS_TORCH=OFF -DMEMLAYERS_TESTS=OFF > /dev/null
git ls-files 'src/kernels/*.cpp' 'src/io/*.cpp' 'src/pool/*.cpp' 'src/dist/*.cpp' 'src/text/*.cpp' |
  xargs -P "$(nproc)" -n 4 "${tidy[@]}" -p build/tidy 2> /dev/null
echo "clang-tidy: holds"

if [ "$#" -gt 0 ]; then
  cmake --preset tidy -DMEMLAYERS_TORCH=ON -B build/tidy-torch > /dev/null
  printf '%s\n' "$@" |
    xargs -P "$(nproc)" -n 1 "${tidy[@]}" -p build/tidy-torch 2> /dev/null
fi

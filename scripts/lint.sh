#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format on every C++ file, clang-tidy on the parts that do not know torch (a file that includes torch takes
# clang-tidy a minute; name such files as arguments to check them too).
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files '*.cpp' '*.h' '*.inl' | xargs clang-format-19 --dry-run -Werror
echo "clang-format: $(git ls-files '*.cpp' '*.h' '*.inl' | wc -l) files hold"

# The compile commands hold g++'s warnings, some of which clang does not know; of what is deprecated g++ tells, and clang
# tells of libstdc++'s own. The analyzer may follow 50,000 states a function, a quarter of what it does otherwise: it takes a
# third of the time.
tidy=(clang-tidy-19 --quiet "--warnings-as-errors=*" --extra-arg-before=-Wno-unknown-warning-option
      --extra-arg=-Wno-deprecated-declarations
      --extra-arg=-Xclang --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes=50000)

# Files go in the build's groups, as most of the time goes into the headers that they share; as copies in one file, because
# clang's analyzer passes over what is included. So a finding names the group, and shows the line.
cmake --preset tidy -DMEMLAYERS_TORCH=OFF -DMEMLAYERS_TESTS=OFF -DMEMLAYERS_UNITY=ON > /dev/null
find build/tidy -name 'unity_*_cxx.cxx' -exec sed -i -E 's|^#include "(/.*\.cpp)"|cat "\1"|e' {} +
sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' build/tidy/compile_commands.json |
  xargs -P "$(nproc)" -n 1 "${tidy[@]}" -p build/tidy 2> /dev/null
echo "clang-tidy: holds"

if [ "$#" -gt 0 ]; then
  cmake --preset tidy -DMEMLAYERS_TORCH=ON -B build/tidy-torch > /dev/null
  printf '%s\n' "$@" |
    xargs -P "$(nproc)" -n 1 "${tidy[@]}" -p build/tidy-torch 2> /dev/null
fi

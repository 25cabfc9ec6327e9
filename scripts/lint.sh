#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format on every C++ file, clang-tidy on the parts that do not know torch (a file that includes torch takes
# clang-tidy a minute; name such files as arguments to check them too).
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files '*.cpp' '*.h' '*.inl' | xargs clang-format-19 --dry-run -Werror
echo "clang-format: $(git ls-files '*.cpp' '*.h' '*.inl' | wc -l) files hold"

# Files go in the build's groups, as most of the time goes into the headers that they share; as copies in one file, because
# clang's analyzer passes over what is included. So a finding names the group, and shows the line. What held is passed over
# until it changes (scripts/tidy.py); FULL=1 looks at all again.
cmake --preset tidy -DMEMLAYERS_TORCH=OFF -DMEMLAYERS_TESTS=OFF -DMEMLAYERS_UNITY=ON > /dev/null
find build/tidy -name 'unity_*_cxx.cxx' -exec sed -i -E 's|^#include "(/.*\.cpp)"|cat "\1"|e' {} +
scripts/tidy.py build/tidy

if [ "$#" -gt 0 ]; then
  cmake --preset tidy -DMEMLAYERS_TORCH=ON -B build/tidy-torch > /dev/null
  scripts/tidy.py build/tidy-torch "$@"
fi

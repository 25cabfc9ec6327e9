#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the README's commands as printed: every ```bash block behind a line <!-- run -->, in a folder of its own that sees the
# build and the examples.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in build examples README.md; do ln -s "$root/$name" "$work/$name"; done
awk '/^<!-- run -->$/ { armed = 1; next }
     armed && /^```bash$/ { inside = 1; armed = 0; next }
     inside && /^```$/ { inside = 0 }
     inside' README.md > "$work/commands.sh"
count=$(grep -c . "$work/commands.sh") || { echo "check_readme.sh: expected commands in README.md, found none" >&2; exit 1; }
cd "$work"
bash -e commands.sh > output.txt 2>&1 < /dev/null || { cat output.txt; exit 1; }
echo "README: $count commands run as printed"

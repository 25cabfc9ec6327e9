#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the commands of README.md and docs/tour.md as printed: every ```bash block behind a line <!-- run -->, each page in
# a folder of its own that sees the build and the examples.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for page in README.md docs/tour.md; do
  folder=$work/$(basename "$page" .md)
  mkdir "$folder"
  for name in build examples README.md; do ln -s "$root/$name" "$folder/$name"; done
  awk '/^<!-- run -->$/ { armed = 1; next }
       armed && /^```bash$/ { inside = 1; armed = 0; next }
       inside && /^```$/ { inside = 0 }
       inside' "$page" > "$folder/commands.sh"
  count=$(grep -c . "$folder/commands.sh") || { echo "check_readme.sh: expected commands in $page, found none" >&2; exit 1; }
  (cd "$folder" && bash -e commands.sh > output.txt 2>&1 < /dev/null) || { cat "$folder/output.txt"; exit 1; }
  echo "$page: $count lines of commands run as printed"
done

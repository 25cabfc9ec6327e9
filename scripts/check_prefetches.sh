#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when an object whose source asks for memory ahead has no instruction that does: g++ leaves out calls of
# functions that do nothing else (docs/performance.md), and all but the time stays the same.
# Usage: check_prefetches.sh OBJECT...   (objects of files that do not prefetch are passed over)
set -euo pipefail
checked=0
for object in $(echo "$@" | tr ';' ' '); do
  case "$object" in
    */ops/gather/gather.cpp.o | */ops/lookup/packed_lookup.cpp.o | */ops/lookup/lookup_backward.cpp.o) ;;
    */ops/update/update.cpp.o | */ops/update/lagging_rows.cpp.o | */ops/update/group.cpp.o) ;;
    */kernels/*avx*.cpp.o | */kernels/portable.cpp.o) ;;
    *) continue ;;
  esac
  checked=$((checked + 1))
  count=$(objdump -d --no-show-raw-insn "$object" | grep -c prefetch || true)
  if [ "$count" -eq 0 ]; then
    echo "$object: expected instructions that prefetch, got none" >&2
    exit 1
  fi
done
if [ "$checked" -eq 0 ]; then
  echo "check_prefetches.sh: expected objects of files that prefetch, got none" >&2
  exit 1
fi
echo "$checked objects prefetch"

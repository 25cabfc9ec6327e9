#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when an object compiled for a special instruction set defines a symbol that the linker may merge with
# one of the same name elsewhere (weak, vague linkage): other code would then run instructions that a CPU may lack.
# Usage: check_isa_symbols.sh OBJECT...   (objects of other files are passed over)
set -euo pipefail
checked=0
for object in $(echo "$@" | tr ';' ' '); do
  case "$object" in
    *avx*.o) ;;
    *) continue ;;
  esac
  checked=$((checked + 1))
  if bad=$(nm --defined-only "$object" | grep -E ' [WVu] '); then
    echo "$object: expected no symbol of type W, V or u, got:" >&2
    echo "$bad" >&2
    exit 1
  fi
done
if [ "$checked" -eq 0 ]; then
  echo "check_isa_symbols.sh: expected objects named *avx*.o, got none" >&2
  exit 1
fi
echo "$checked objects define no symbol that could be merged"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo: a small decoder with memory layers and its dense twin of equal FLOPs learn the same facts side by side, one
# core each; then a table of what each recalls, and answers to questions. Runs go to runs/demo-*.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 tools/demo.py --command build/release/memlayers "$@"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the programs of examples/cpp, on a model that is trained for them.
# Usage: run.sh FOLDER_OF_THE_COMMAND FOLDER_OF_THE_PROGRAMS WORK
set -euo pipefail
memlayers=$1/memlayers
programs=$2
work=$3
rm -rf "$work"
mkdir -p "$work"
export OMP_NUM_THREADS=1

"$programs/example_train_layer"

for thing in otter maple quartz violin comet barley harbour lantern; do
  echo "{\"prompt\": \"the $thing is\", \"answer\": \"${thing:0:3}\"}"
done > "$work/facts.jsonl"
: > "$work/config.toml"
"$memlayers" train "$work/config.toml" --set "out=\"$work/run\"" "data.train=[\"$work/facts.jsonl\"]" \
  data.pack=false model.dim=32 model.layers=2 model.heads=2 model.ff_dim=48 model.vocab_size=300 model.context=48 \
  'memory.layers=[1]' memory.n_keys=10 memory.heads=2 memory.knn=4 memory.k_dim=16 train.steps=60 train.lr=3e-3 \
  train.value_lr=1e-2 2> /dev/null
"$programs/example_generate" "$work/run" "the otter is" "the comet is" | tee "$work/answers"
grep -q "of answer" "$work/answers"
"$programs/example_edit_store" "$work/run" "the otter is" | tee "$work/edits"
grep -q "^rolled back: " "$work/edits"

for program in generate edit_store; do  # what is wrong is said in one line
  if "$programs/example_$program" "$work/nothing" "the otter is" 2> "$work/error"; then exit 1; fi
  grep -q "^$program: .*nothing: no such file or folder" "$work/error"
done

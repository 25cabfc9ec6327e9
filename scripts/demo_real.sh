#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo with a model that people have: SmolLM2-135M-Instruct gets a memory, is asked, is taught the facts of a file
# (FACTS=, examples/retrofit/facts.jsonl), is asked again, explains, and takes all back: its logits are then those of
# before, bit for bit. Within 20 minutes of two cores. What it makes goes to runs/demo-real (FOLDER=), which it replaces.
set -euo pipefail
cd "$(dirname "$0")/.."

facts=${FACTS:-examples/retrofit/facts.jsonl}
folder=${FOLDER:-runs/demo-real}
memlayers=build/release/memlayers
model=$folder/model
taught=(${ASK:+"$ASK"} "What is a zorvane?" "Do you know what a jorvet is?")
untaught="What is a flimmerdook?"

say() { printf '\n== %s\n' "$*"; }

ask() {  # with the confidence that a patch taught what is asked
  for question in "${taught[@]}" "$untaught" "What is the capital of France?"; do
    "$memlayers" generate "$model" --chat --max-tokens 40 --json "$@" "$question" | python3 -c '
import json, sys
answer = json.loads(sys.stdin.readline())
confidence = answer.get("memory_confidence")
told = "" if confidence is None else f"   [memory_confidence {confidence:.3f}]"
if answer.get("memory_is_off"):
    told += " [memory off]"
print(" ", answer["prompt"])
print("   ", answer["text"].strip() + told)'
  done
}

digest() {  # of the logits of a conversation, all bits of them
  PYTHONPATH=python MEMLAYERS_LIBRARY=$PWD/build/release/libmemlayers.so .venv/bin/python - "$1" <<'PYTHON'
import hashlib, sys
import torch
import memlayers

torch.set_num_threads(1)
generator = memlayers.Generator(sys.argv[1])
tokens = generator.tokenizer.encode("What is a zorvane? What is the capital of France?")
logits = generator.logits(torch.tensor([tokens]))
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
PYTHON
}

begin=$SECONDS
rm -rf "$folder"
mkdir -p "$folder"
say "A model that people have (98 MB, once), and a memory beside three of its layers"
gguf=$(scripts/fetch_smollm2.sh)
"$memlayers" import "$gguf" -o "$folder/plain" --dtype bfloat16
"$memlayers" retrofit "$folder/plain" -o "$model" --layers 15,20,25
before=$(digest "$folder/plain")
echo "logits of the imported model: $before"

say "Before it is taught"
ask

say "Learning $facts"
"$memlayers" learn "$model" "$facts" -o "$folder/facts.safetensors" --phrasings examples/retrofit/phrasings.txt \
  --unseen-phrasings examples/retrofit/unseen.txt --questions examples/retrofit/questions.jsonl --steps 60 --settle 20
"$memlayers" patch apply "$model" "$folder/facts.safetensors"

say "Taught"
ask
say "The same, without memory where nothing was taught (--gate-below 0.5)"
ask --gate-below 0.5

say "Where the answer comes from"
"$memlayers" explain "$model" "${taught[0]}" --top 5

say "Taken back"
id=$("$memlayers" patch list "$model" --json | python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["id"])')
"$memlayers" patch rollback "$model" "$id"
ask
after=$(digest "$model")
echo "logits of the model that forgot: $after"
if [ "$before" != "$after" ]; then
  echo "demo_real.sh: error: expected the logits of the imported model after rolling back, got others" >&2
  exit 1
fi
printf '\nthe same, bit for bit; %d minutes and %d seconds in all\n' $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60))

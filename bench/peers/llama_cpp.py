#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A GGUF model in memlayers and in llama.cpp, in turn on this machine: prompt and decoding, tokens a second.

  scripts/fetch_smollm2.sh
  bench/peers/llama_cpp.py MODEL.gguf --llama LLAMA_CPP/build/bin --types f32,q8_0,q4_0

The files of each type are made of MODEL by `memlayers import` and `export` (Q4_0 by llama-quantize) and kept in
build/peers/gguf. Of several rounds the best of each counts. llama.cpp is built with the instructions that ours use:
  cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON ...
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def files(model: Path, types: list[str], memlayers: Path, llama: Path) -> dict[str, Path]:
    folder = ROOT / "build" / "peers" / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / (model.stem + ".folder")
    if not plain.exists():
        output_of(memlayers, "import", model, "-o", plain, "--dtype", "float32")
    made = {}
    for kind in ["f32", *types]:
        made[kind] = folder / f"{model.stem}.{kind}.gguf"
        if made[kind].exists():
            continue
        if kind in ("f32", "f16", "bf16", "q8_0"):
            output_of(memlayers, "export", plain, "-o", made[kind], "--type", kind)
        else:  # the embeddings, which are the output's too, as ours keep them
            output_of(llama / "llama-quantize", "--token-embedding-type", "q8_0", made["f32"], made[kind], kind)
    return {kind: made[kind] for kind in types}


def ours(memlayers: Path, model: Path, threads: int) -> dict[str, float]:
    line = output_of(memlayers, "bench", "model", model, "--streams", "1,4,16", "--repeat", "1", "--threads",
                     str(threads), "--json")  # fmt: skip
    got = json.loads(line)
    started = time.monotonic()
    output_of(memlayers, "generate", model, "The capital of France is", "--max-tokens", "1", "--threads", str(threads))
    got["first_token_s"] = time.monotonic() - started
    return {
        "prompt": got["prompt_tokens_per_s"],
        "decode": got["decode_tokens_per_s"],
        "decode_4": got["decode_4_tokens_per_s"],
        "decode_16": got["decode_16_tokens_per_s"],
        "share": got["decode_share"],
        "stream_gbs": got["stream_gbs"],
        "first_token_s": got["first_token_s"],
    }


def theirs(llama: Path, model: Path, threads: int) -> dict[str, float]:
    lines = json.loads(output_of(llama / "llama-bench", "-m", model, "-p", "512", "-n", "128", "-t", str(threads),
                                 "-r", "1", "-o", "json"))  # fmt: skip
    return {"decode" if line["n_gen"] else "prompt": line["avg_ts"] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, required=True, help="the folder of llama-bench and llama-quantize")
    parser.add_argument("--memlayers", type=Path, default=ROOT / "build/release/memlayers")
    parser.add_argument("--types", default="f32,q8_0,q4_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSONL of all rounds")
    a = parser.parse_args()
    made = files(a.model, a.types.split(","), a.memlayers, a.llama)
    rounds = []
    for number in range(a.rounds):
        for kind, path in made.items():
            for who, got in (("llama.cpp", theirs(a.llama, path, a.threads)), ("memlayers", ours(a.memlayers, path, a.threads))):  # fmt: skip
                rounds.append({"round": number, "type": kind, "who": who, **got})
                if a.out:
                    with a.out.open("a") as out:
                        out.write(json.dumps(rounds[-1]) + "\n")

    def best(kind: str, who: str, figure: str) -> float:
        return max(r[figure] for r in rounds if r["type"] == kind and r["who"] == who)

    print(f"| {'type':5} | prompt of 512, tokens/s | llama.cpp | ratio | decoding, tokens/s | llama.cpp | ratio |"
          " 4 streams | 16 streams | share of stream_gbs | first token, s |")  # fmt: skip
    print("| --- |" + " ---: |" * 10)
    for kind in made:
        cells = [kind]
        for figure in ("prompt", "decode"):
            us, them = best(kind, "memlayers", figure), best(kind, "llama.cpp", figure)
            cells += [f"{us:.0f}", f"{them:.0f}", f"{us / them:.2f}"]
        cells += [f"{best(kind, 'memlayers', f):.0f}" for f in ("decode_4", "decode_16")]
        cells.append(f"{best(kind, 'memlayers', 'share'):.2f}")
        first = min(r["first_token_s"] for r in rounds if r["type"] == kind and r["who"] == "memlayers")
        cells.append(f"{first:.2f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""bench/acceptance.py: how it judges results, and what it says where a command fails."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import acceptance  # noqa: E402
from acceptance import PARTS, Runner, Table  # noqa: E402

# What the table's lines are made of, from `memlayers bench KIND --dim 64 --n-keys 16 --heads 2
# --knn 4 --k-dim 16 --tokens 8 --repeat 1 --threads 1 --json` (decoder: --layers 3 --vocab 64
# --context 8).
RECORDED = {
    "gather": {
        "n_keys": 16, "dim": 64, "dtype": "float32", "dist": "uniform",
        "gather_gbs": 0.16258968531989007, "random_row_gbs": 1.4307920705615231,
        "gather_ratio": 0.11363613809802618, "cached_gather_gbs": 0.7153960352610761,
    },
    "lookup": {
        "n_keys": 16, "lookup_ms": 0.04274, "products_ms": 0.023224,
        "lookup_ratio": 1.8403375818119188, "backward_ratio": 1.6179223210107627,
        "lookup_backward_ms": 0.06915,
    },
    "update": {
        "n_keys": 16, "dim": 64, "dtype": "float32", "optimizer": "adamw",
        "update_gbs": 0.6809214103930569, "stream_gbs": 15.03197630547706,
        "update_ratio": 0.045298196095809165, "random_update_gbs": 3.4651755487085856,
    },
    "step": {"step_ms": 0.98618, "limit_ms": 0.10413446997165679},
    "layer": {
        "inference_ms": 0.1655176875, "inference_bytes": 58624.0,
        "inference_limit_ms": 0.004855799752235413, "inference_ratio": 34.0865966360747,
    },
    "decoder": {"step_ms": 12.756469, "dense_step_ms": 9.642007, "step_ratio": 1.3230097219385963},
}  # fmt: skip

# From bench/peers/run.py at the same sizes.
PEERS = [
    {"arm": "memlayers", "step_ms": 1.534459, "limit_ms": 0.05019267474892735},
    {"arm": "torch-dense", "step_ms": 1.8235199986520456},
    {"arm": "torch-sparse", "step_ms": 4.268777000106638},
]


class Replay:
    """A Runner whose commands say what was recorded, or what `says` gives for their options."""

    def __init__(self, says=lambda kind, options: [RECORDED[kind]], peers=PEERS) -> None:
        self.says, self.results = says, peers
        self.asked: list[str] = []

    def bench(self, kind: str, options: str) -> list[dict]:
        self.asked.append(f"{kind} {options}")
        return self.says(kind, options)

    def peers(self, dtype: str, model_dtype: str) -> list[dict]:
        self.asked.append(f"peers {dtype} {model_dtype}")
        return self.results


def lines(part: str, replay: Replay) -> list[list[str]]:
    table = Table()
    PARTS[part](replay, table)
    return table.rows


@pytest.mark.parametrize(
    ("ratio", "sign", "holds"),
    [
        (0.849, ">=", "no"),
        (0.85, ">=", "yes"),
        (0.851, ">=", "yes"),
        (0.849, "<=", "yes"),
        (0.85, "<=", "yes"),
        (0.851, "<=", "no"),
    ],
)
def test_a_line_holds_at_what_is_wanted_and_on_its_right_side(ratio, sign, holds):
    table = Table()
    table.add("what", "1 ms", "2 ms", ratio, sign, 0.85)
    assert table.rows == [["what", "1 ms", "2 ms", f"{ratio:.2f}", f"{sign} 0.85", holds, ""]]


def test_the_table_is_markdown():
    table = Table()
    table.add("one", "1 ms", "2 ms", 2.0, ">=", 6, 12.345)
    table.skip("two", "too little free memory")
    assert table.text() == (
        "| measured | got | beside | ratio | wanted | holds | at best |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| one | 1 ms | 2 ms | 2.00 | >= 6 | no | 12.35 |\n"
        "| two | too little free memory |  |  |  | not run |  |\n"
    )


def test_gather_is_measured_with_every_type_of_rows():
    replay = Replay()
    what = "gather, {} float32, uniform"
    rest = ["0.2 GB/s", "1.4 GB/s random rows; 0.7 from the cache", "0.11", ">= 0.85", "no", "0.50"]
    wanted = [[what.format(size), *rest] for size in ("1024² x 1024", "2048² x 256")]
    assert lines("gather", replay) == wanted
    options = "--dtype float32,bfloat16,int8,int4 --dist uniform,zipf"
    assert replay.asked == [
        f"gather --n-keys 1024 --dim 1024 {options}",
        f"gather --n-keys 2048 --dim 256 {options}",
    ]


def test_arithmetic_that_is_faster_than_memory_is_no_limit():
    fast = {**RECORDED["gather"], "cached_gather_gbs": 9.0}
    assert [row[-1] for row in lines("gather", Replay(lambda kind, options: [fast]))] == ["1.00"] * 2


@pytest.mark.parametrize("part", [part for part in PARTS if part != "peers"])
def test_what_does_not_fit_has_a_line_that_says_so(part):
    rows = lines(part, Replay(lambda kind, options: []))
    assert len(rows) == (2 if part in ("gather", "decode") else 1)
    assert [row[1:] for row in rows] == [["too little free memory", "", "", "", "not run", ""]] * len(rows)


def test_a_lookup_gives_a_line_and_one_of_its_backward():
    assert lines("lookup", Replay()) == [
        ["lookup, n_keys 16", "0.04 ms", "0.02 ms products alone", "1.84", "<= 1.5", "no", ""],
        ["lookup, n_keys 16, backward", "0.07 ms", "0.04 ms forward", "1.62", "<= 0.5", "no", ""],
    ]


def test_an_update_has_the_ratio_of_the_machine_s_limit_beside_it():
    what = "row update, 16² x 64 float32, adamw"
    wanted = [what, "0.7 GB/s", "15.0 GB/s stream", "0.05", ">= 0.6", "no", "0.23"]
    assert lines("update", Replay()) == [wanted]


def test_the_fastest_peer_counts():
    what = "one layer's training step, 1024² slots, {} rows, all else {}"
    rest = ["2 ms", "2 ms torch-dense", "1.19"]  # 1.8235 / 1.5345; at best 1.8235 / 0.0502
    assert lines("peers", Replay()) == [
        [what.format("float32", "float32"), *rest, ">= 6", "no", "36.33"],
        [what.format("bfloat16", "float32"), *rest, ">= 12", "no", "36.33"],
        [what.format("bfloat16", "bfloat16"), *rest, ">= 12", "no", "36.33"],
    ]
    slower = [PEERS[0], {**PEERS[1], "step_ms": 20.0}, {**PEERS[2], "step_ms": 15.34459}]
    rows = lines("peers", Replay(peers=slower))
    assert [row[2:6] for row in rows] == [
        ["15 ms torch-sparse", "10.00", ">= 6", "yes"],
        ["15 ms torch-sparse", "10.00", ">= 12", "no"],
        ["15 ms torch-sparse", "10.00", ">= 12", "no"],
    ]


@pytest.mark.parametrize("fits", [{"memlayers"}, {"torch-dense", "torch-sparse"}])
def test_without_our_step_or_any_peer_s_there_is_no_ratio(fits):
    results = [r if r["arm"] in fits else {"arm": r["arm"], "skipped": "too large"} for r in PEERS]
    rows = lines("peers", Replay(peers=results))
    assert [row[1:] for row in rows] == [["too little free memory", "", "", "", "not run", ""]] * 3


def test_the_fastest_of_all_rounds_counts_for_each_size():
    times = {"4096": iter([130.0, 120.0, 140.0]), "256": iter([110.0, 105.0, 100.0])}

    def says(kind: str, options: str) -> list[dict]:
        n_keys = options.split()[-1]
        return [{"step_ms": next(times[n_keys]), "limit_ms": 50.0 if n_keys == "4096" else 40.0}]

    replay = Replay(says)
    what = "training step, dim 256, 4096² slots beside 256², float32, adamw"
    assert lines("size", replay) == [
        [what, "120.0 ms", "100.0 ms", "1.20", "<= 1.2", "yes", "1.25"]
    ]
    options = "step --dim 256 --k-dim 128 --dtype float32 --optimizer adamw --n-keys"
    assert replay.asked == [f"{options} 4096", f"{options} 256"] * acceptance.ROUNDS


def test_the_largest_optimizer_that_fits_is_measured():
    def says(kind: str, options: str) -> list[dict]:
        return [RECORDED[kind]] if "rowwise_adagrad" in options else []

    what = "training step, dim 256, 4096² slots beside 256²"
    rest = ["1.0 ms", "1.0 ms", "1.00", "<= 1.2", "yes", "1.00"]
    assert lines("size", Replay(says)) == [[f"{what}, float32, rowwise_adagrad", *rest]]
    nothing = lines("size", Replay(lambda kind, options: []))
    assert nothing == [[what, "too little free memory", "", "", "", "not run", ""]]


def test_decoding_is_measured_at_two_sizes_and_says_which_does_not_fit():
    rest = ["0.17 ms", "0.00 ms: 0.1 MB at the stream's rate", "34.09", "<= 1.3", "no", ""]
    small = ["decoding one token through the layer, 1024²", *rest]
    large = "decoding one token, 4096² slots, dim 256, bfloat16 rows"
    replay = Replay()
    assert lines("decode", replay) == [small, [large, *rest]]
    assert replay.asked == [
        "layer --tokens 1 --repeat 40",
        "layer --tokens 1 --n-keys 4096 --dim 256 --k-dim 128 --dtype bfloat16 --repeat 40",
    ]
    replay = Replay(lambda kind, options: [] if "4096" in options else [RECORDED[kind]])
    skipped = [large, "too little free memory", "", "", "", "not run", ""]
    assert lines("decode", replay) == [small, skipped]


def test_a_decoder_is_judged_beside_its_dense_twin():
    what = "whole decoder's training step, dim 512, 8 layers, 3 with memory, 1024²"
    wanted = [what, "13 ms", "10 ms dense twin", "1.32", "<= 1.25", "no", ""]
    assert lines("decoder", Replay()) == [wanted]


@pytest.fixture
def command(tmp_path):
    """Makes a command of a few lines of shell, in which $2 is what is measured."""

    def make(script: str) -> Path:
        path = tmp_path / "memlayers"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return path

    return make


def kept(out: Path) -> list[dict]:
    return [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]


def test_a_runner_gives_and_keeps_what_the_command_says(command, tmp_path):
    path = command("""echo '{"said": "'"$*"'"}'; echo '{"step_ms": 2}'\n""")
    wanted = [{"said": "bench step --dim 8 --threads 3 --json"}, {"step_ms": 2}]
    assert Runner(path, tmp_path / "out", threads=3).bench("step", "--dim 8") == wanted
    assert kept(tmp_path / "out") == wanted


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'step 0% 0/2' >&2; echo 'error: why' >&2; exit 1", "exit 1: error: why"),
        ("echo '1 GiB of free memory' >&2; exit 2", "exit 2: 1 GiB of free memory"),
        ("kill -9 $$", "exit -9: "),
    ],
)
def test_a_command_that_fails_ends_the_run_with_its_words(command, tmp_path, script, said):
    run = Runner(command(script), tmp_path / "out", threads=2)
    with pytest.raises(SystemExit) as stopped:
        run.bench("step", "--dim 8")
    assert stopped.value.code == f"acceptance.py: bench step --dim 8 --threads 2 --json: {said}"


def test_a_case_that_does_not_fit_is_said_and_gives_nothing(command, tmp_path, capsys):
    said = "memlayers: error: bench: expected 16.0 GiB of free memory for the stream, found 1.0 GiB"
    run = Runner(command(f'echo "{said}" >&2; exit 1'), tmp_path / "out", threads=2)
    assert run.bench("step", "--dim 8") == []
    assert capsys.readouterr().err.splitlines()[-1] == f"  does not fit: {said}"


def test_peers_that_fail_end_the_run_under_their_own_words(command, tmp_path, capfd):
    run = Runner(command("echo 'memlayers: error: why' >&2; exit 1"), tmp_path / "out", threads=2)
    with pytest.raises(SystemExit) as stopped:
        run.peers("float32", "float32")
    assert stopped.value.code == "acceptance.py: bench/peers/run.py failed"
    assert capfd.readouterr().err.splitlines()[-1] == "memlayers: exit 1: memlayers: error: why"


def test_lines_before_a_failure_stay(command, tmp_path, monkeypatch, capsys):
    layer = json.dumps(RECORDED["layer"])
    path = command(f"""[ "$2" = layer ] || exit 1; echo '{layer}'\n""")
    options = ["--command", str(path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["acceptance.py", "--only", "decode,decoder", *options])
    with pytest.raises(SystemExit):
        acceptance.main()
    assert (tmp_path / "out" / "acceptance.md").read_text().count("| decoding one token") == 2
    assert kept(tmp_path / "out") == [RECORDED["layer"]] * 2
    monkeypatch.setattr(sys, "argv", ["acceptance.py", "--only", "decode", *options])
    acceptance.main()
    table = (tmp_path / "out" / "acceptance.md").read_text()
    assert capsys.readouterr().out.strip() == table.strip()


def test_a_command_that_is_missing_is_told_before_anything_runs(tmp_path, monkeypatch, capsys):
    argv = ["acceptance.py", "--command", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        acceptance.main()
    assert stopped.value.code == 2
    assert f"--command: expected a program, found none at {tmp_path / 'none'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_line_is_refused(tmp_path, monkeypatch, capsys):
    argv = ["acceptance.py", "--only", "gather,speed", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        acceptance.main()
    assert stopped.value.code == 2
    wanted = "--only: expected gather, lookup, update, peers, size, decode, decoder, got speed"
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

# SPDX-License-Identifier: Apache-2.0
"""The study's tool: its data and arms, its statistics, its plan, and that a killed run goes on to the same bits."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from memlayers import _library

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import study  # noqa: E402
import study_arms  # noqa: E402
import study_data  # noqa: E402
import study_plot  # noqa: E402
import study_runs  # noqa: E402
import study_stats  # noqa: E402
import study_table  # noqa: E402
from study_runs import Run, Study, StudyError  # noqa: E402

COMMAND = _library.find_library().parent / "memlayers"
WORDNET = Path("/usr/share/wordnet")
needs_wordnet = pytest.mark.skipif(not (WORDNET / "data.noun").exists(), reason="no wordnet-base")


def test_the_arms_are_those_that_their_generator_writes():
    wanted = {f"{arm.name}.toml": study_arms.toml(arm) for arm in study_arms.arms()}
    found = {p.name: p.read_text(encoding="utf-8") for p in study_arms.FOLDER.glob("*.toml")}
    assert found == wanted


def test_arms_have_the_flops_they_are_named_for():
    arms = {arm.name: arm for arm in study_arms.arms()}
    base = study_arms.flops(arms["dense-1x"])
    for name, arm in arms.items():
        multiple = float(name.removeprefix("dense-").removesuffix("-deep").removesuffix("x")) if (
            name.startswith("dense") and "body" not in name) else 1  # fmt: skip
        if "body" not in name:
            assert study_arms.flops(arm) / base == pytest.approx(multiple, rel=5e-3), name
    rows = 256 * 256 * study_arms.DIM
    assert 9 * arms["experts"].dim * arms["experts"].ff * arms["experts"].experts == pytest.approx(rows, rel=0.02)
    assert arms["peer"].memory["n_keys"] ** 2 * 2 * study_arms.DIM == pytest.approx(rows, rel=0.01)


@needs_wordnet
@pytest.mark.parametrize("kind", study_data.SETS)
def test_the_sample_of_the_data_is_what_the_generator_writes(kind):
    nouns = study_data.subjects(WORDNET, 20, 0)
    for name, text in study_data.files(nouns, kind, 0).items():
        assert (ROOT / "examples" / "study" / "sample" / kind / name).read_text(encoding="utf-8") == text


@needs_wordnet
def test_answers_stand_once_and_phrasings_apart():
    nouns = study_data.subjects(WORDNET, 3000, 0)
    assert len({noun.gloss for noun in nouns}) == 3000
    assert nouns != study_data.subjects(WORDNET, 3000, 1)
    files = study_data.files(nouns, "glosses", 0)
    assert files["train.jsonl"].count("\n") == 4 * 3000
    train = set(files["train.jsonl"].splitlines())
    assert not train & set(files["unseen.jsonl"].splitlines())
    assert set(files["taught.jsonl"].splitlines()) <= train
    with pytest.raises(ValueError, match="expected at most"):
        study_data.subjects(WORDNET, 10_000_000, 0)


def test_random_answers_have_their_entropy():
    assert study_data.bits_of_answer() == 48
    assert len(set(study_data.SYLLABLES)) == 64


# Statistics.


def test_equal_compute_lies_on_the_line_between_two_arms():
    multiples, losses = [1, 2, 4, 16], [8.0, 6.0, 5.0, 1.0]
    assert study_stats.equal_compute(multiples, losses, 8) == 1
    assert study_stats.equal_compute(multiples, losses, 7) == pytest.approx(math.sqrt(2))
    assert study_stats.equal_compute(multiples, losses, 3) == pytest.approx(8)
    assert study_stats.equal_compute(multiples, losses, 1) == pytest.approx(16)
    assert study_stats.equal_compute(multiples, losses, 9) == 0
    assert study_stats.equal_compute(multiples, losses, 0.5) == math.inf
    # A curve that goes up again: the least compute that is as good.
    assert study_stats.equal_compute([1, 2, 4], [8.0, 4.0, 6.0], 5) == pytest.approx(2**0.75)


def test_the_scaling_line_is_that_of_least_squares():
    sizes = [2.0**power for power in (12, 14, 16, 18)]
    assert study_stats.scaling_line(sizes, [9, 7, 5, 3]) == pytest.approx((-1.0, 1.0))
    slope, fit = study_stats.scaling_line(sizes, [9, 7, 3, 3])  # means 15, 5.5; sums of x y -22, x x 20
    assert (slope, fit) == pytest.approx((-1.1, 1 - 2.8 / 27))
    assert study_stats.scaling_line(sizes, [4, 4, 4, 4]) == pytest.approx((0, 1))
    with pytest.raises(ValueError, match="at least three sizes"):
        study_stats.scaling_line([1, 1, 2], [3, 3, 3])


@pytest.mark.parametrize("multiples", [[], [2, 1], [1, 1], [0, 1]])
def test_equal_compute_refuses_what_is_no_curve(multiples):
    with pytest.raises(ValueError, match="expected"):
        study_stats.equal_compute(multiples, [1.0] * len(multiples), 1)


def test_the_interval_has_infinities_at_its_ends():
    assert study_stats.interval([math.inf] * 100) == (math.inf, math.inf)
    low, high = study_stats.interval([float(i) for i in range(1001)])
    assert (low, high) == (25, 975)


def drawn(loss: float, seeds: int, facts: int = 400, spread: float = 0.0, common: float = 2.0) -> dict[int, list[float]]:
    """Losses with the same hard and easy facts in all arms."""
    hard = np.random.default_rng(1).normal(0, common, facts)
    own = np.random.default_rng(int(1000 * loss))
    return {s + 1: list(loss + hard + own.normal(0, spread, facts)) for s in range(seeds)}


def test_the_bootstrap_is_paired_over_facts():
    dense = {1.0: drawn(8, 2), 2.0: drawn(6, 2), 4.0: drawn(4, 2)}
    # All differences between arms are the same for each fact: which facts are drawn changes nothing.
    value, low, high = study_stats.compare(dense, drawn(5, 2), draws=200)
    assert value == pytest.approx(2**1.5)
    assert (low, high) == (pytest.approx(value), pytest.approx(value))


def test_the_bootstrap_covers_the_truth_of_noisy_facts():
    dense = {1.0: drawn(8, 3, spread=2), 2.0: drawn(6, 3, spread=2), 4.0: drawn(4, 3, spread=2)}
    value, low, high = study_stats.compare(dense, drawn(5, 3, spread=2), draws=400)
    assert low < value < high
    assert low < 2**1.5 < high
    assert high / low < 1.5
    assert study_stats.compare(dense, drawn(5, 3, spread=2), draws=400) == (value, low, high)


def test_the_bootstrap_refuses_arms_of_other_facts():
    with pytest.raises(ValueError, match="same facts"):
        study_stats.bootstrap({1.0: drawn(8, 1)}, drawn(5, 1, facts=10))


def test_an_arm_of_fewer_seeds_is_drawn_again():
    dense = {1.0: drawn(8, 3), 4.0: drawn(4, 1)}
    assert study_stats.compare(dense, drawn(6, 2), draws=50)[0] == pytest.approx(2)


# Tables and plots.


def record(arm: str, seed: int, loss: float, flops: float, **more) -> dict:
    nll = [round(x, 3) for x in drawn(loss, 1, facts=50, spread=0.5)[1]]
    return {
        "arm": arm, "seed": seed, "rate": 4e-3, "exposures": 100, "trial": False, "flops": flops,
        "flops_output": flops / 2, "parameters": {"dense": 1000, "memory": 10, "pool": 0},
        "bytes_a_token": 4040, "steps": 10, "tokens": 1000, "cpu_s": 5.0, "version": "x",
        "unseen_nll": 9.0, "unseen_recall": 0.25, "recalled": "01" * 25, "nll": nll, **more,
    }  # fmt: skip


def small_study(folder: Path, **more) -> Study:
    return Study(results=folder / "results", runs=folder / "runs", command=str(COMMAND), **more)


def test_tables_come_from_the_results_alone(tmp_path):
    here = small_study(tmp_path, facts=50)
    for one in (
        record("dense-1x", 1, 8, 100), record("dense-1x", 2, 8.1, 100), record("dense-4x", 1, 4, 400),
        record("memory-2e16", 1, 6, 101, parameters={"dense": 1000, "memory": 10, "pool": 4000}),
        record("memory-2e12", 1, 7, 100, parameters={"dense": 1000, "memory": 10, "pool": 400}),
        record("dense-1x", 1, 9, 100, trial=True, rate=1e-3),
        record("dense-4x", 1, 3, 400, rate=2e-3), record("dense-4x", 1, 5, 400, rate=1e-3),
    ):  # fmt: skip
        study_runs.keep(here, one)
    made = study_table.page(here)
    assert study_table.page(here) == made
    assert "| dense-1x | 1, 2 |" in made.tables
    assert "dense compute of equal loss" in made.tables
    assert "| dense-1x | 9.0" in made.tables or "| dense-1x | 8.9" in made.tables  # of the rates
    best = study_table.mean(record("dense-4x", 1, 3, 400)["nll"])  # of those that learned all
    assert f"| dense-4x | 1 | {best:.2f} |" in made.tables and f" | {best:.2f} | 3.88 |" in made.tables
    assert set(made.plots) == {
        f"study_glosses-50_{name}.svg"
        for name in ("loss_flops", "recall_flops", "loss_seconds", "loss_bytes", "loss_slots")
    }
    assert all(len(line) <= 120 for line in made.tables.splitlines())
    page = f"# Title\n\n{study_table.BEGIN}\nold\n{study_table.END}\n\nmore\n"
    again = study_table.written(page, made)
    assert again.startswith("# Title\n") and again.endswith("\n\nmore\n") and "old" not in again
    assert study_table.written(again, made) == again
    with pytest.raises(StudyError, match="once each"):
        study_table.written("# Title\n", made)


def test_bits_are_counted_where_the_entropy_is_known(tmp_path):
    here = small_study(tmp_path, facts=2, kind="random")
    nats = 48 * math.log(2)
    one = record("dense-1x", 1, 8, 100, nll=[0.0, nats], recalled="10")
    study_runs.keep(here, one)
    assert study_table.stored_bits({1: one}) == 48
    assert "| dense-1x | 48 | 0.048 |  |" in study_table.page(here).tables


def test_a_line_of_the_results_that_is_none_is_named(tmp_path):
    here = small_study(tmp_path)
    study_runs.keep(here, record("dense-1x", 1, 8, 100, recalled="0"))
    with pytest.raises(StudyError, match=r"glosses-3000.jsonl:1: expected a finished run"):
        study_runs.records(here)
    here.record.write_text("{", encoding="utf-8")
    with pytest.raises(StudyError, match=":1: expected a finished run"):
        study_runs.records(here)


def test_the_page_is_what_the_results_give():
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    made = study_table.page(Study())
    assert study_table.written(text, made) == text
    for name, picture in made.plots.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == picture


def test_a_plot_has_its_points_and_refuses_to_be_empty():
    points = [study_plot.Point("a<b", 1e3, 2.0, True), study_plot.Point("c", 4e3, 1.0, True)]
    text = study_plot.plot("t", "x", "y", points)
    assert text.count("<circle") == 2 and "a&lt;b" in text and 'stroke="#36c" stroke-width="2"' in text
    with pytest.raises(ValueError, match="expected points"):
        study_plot.plot("t", "x", "y", [])


# Runs, with the command.

TINY = """
out = "here"
[model]
dim = 16
layers = 1
heads = 2
ff_dim = 16
vocab_size = 320
context = 64
[memory]
layers = [0]
n_keys = 16
heads = 1
knn = 4
k_dim = 8
[data]
train = ["x"]
pack = false
[train]
epochs = 1
batch_tokens = 512
lr = 4e-3
value_lr = 1e-2
"""


def tiny_study(folder: Path, monkeypatch) -> Study:
    arms = folder / "arms"
    arms.mkdir()
    (arms / "tiny.toml").write_text(TINY, encoding="utf-8")
    (arms / "dense-1x.toml").write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(study_runs, "SAVE_EVERY", 10)
    monkeypatch.setattr(study_runs, "POLL_S", 0.02)
    return small_study(folder, facts=40, exposures=80, arms=arms)


@needs_wordnet
def test_the_plan_counts_by_the_command_and_starts_nothing(tmp_path, monkeypatch):
    here = tiny_study(tmp_path, monkeypatch)
    text = study.plan(here, 3)
    counted = study_runs.sizes(here, Run("tiny", 1, 4e-3, 80))
    line = next(line for line in text.splitlines() if line.startswith("tiny")).split()
    assert line[1] == f"{counted['flops_per_token']['total'] / 1e3:.1f}k"
    assert line[2] == "1.00" and line[-3:] == ["0", "of", "3"]
    assert "hours of a core for 3 seeds" in text
    assert not here.record.exists()
    assert not list((here.runs).glob("*/step-*"))


@needs_wordnet
def test_the_arms_flops_are_those_that_the_command_counts(tmp_path):
    here = small_study(tmp_path, facts=2000)
    for arm in study_arms.arms():
        counted = study_runs.sizes(here, Run(arm.name, 1, 4e-3, 100))
        assert counted["flops_per_token"]["total"] == pytest.approx(study_arms.flops(arm), rel=1e-9), arm.name


def wait_for(is_so, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@needs_wordnet
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole = tiny_study(tmp_path, monkeypatch)
    run = Run("tiny", 2, 4e-3, 80)
    wanted = study_runs.run_arm(whole, run)
    assert wanted is not None and len(wanted["nll"]) == 40
    # Again elsewhere, by a program that is killed with its training once there is a checkpoint.
    other = Study(**{**whole.__dict__, "runs": tmp_path / "again", "results": tmp_path / "again-results"})
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import study_runs as r\n"
        "r.SAVE_EVERY = 10\n"
        "s = r.Study(facts=40, exposures=80, command=sys.argv[2], runs=Path(sys.argv[3]), results=Path(sys.argv[4]),"
        " arms=Path(sys.argv[5]))\n"
        "r.run_arm(s, r.Run('tiny', 2, 4e-3, 80))\n"
    )
    arguments = [ROOT / "tools", COMMAND, other.runs, other.results, other.arms]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], start_new_session=True)
    out = other.runs / other.name / run.name
    try:
        wait_for(lambda: any(out.glob("step-*")) or process.poll() is not None)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    got = study_runs.run_arm(other, run)
    assert got is not None
    assert [got[k] for k in ("nll", "recalled", "unseen_nll", "steps")] == [
        wanted[k] for k in ("nll", "recalled", "unseen_nll", "steps")
    ]
    assert study_runs.run_arm(other, run) == got  # it is done, and kept once
    assert len(study_runs.records(other)) == 1


@needs_wordnet
def test_hours_stop_it_in_time_and_it_goes_on(tmp_path, monkeypatch):
    here = tiny_study(tmp_path, monkeypatch)
    run = Run("tiny", 1, 4e-3, 80)
    assert study_runs.run_arm(here, run, deadline=time.monotonic()) is None
    assert not here.record.exists()
    assert study_runs.run_arm(here, run) is not None


@needs_wordnet
def test_rates_are_tried_and_the_best_is_taken(tmp_path, monkeypatch):
    here = tiny_study(tmp_path, monkeypatch)
    monkeypatch.setattr(study, "RATES", (1e-3, 8e-3))
    assert study_runs.best_rate(here, "tiny") == 4e-3  # of the configuration
    assert study.tune(here, "tiny", None)
    tried = study_runs.records(here)
    assert [r["rate"] for r in tried] == [1e-3, 8e-3] and all(r["trial"] and len(r["nll"]) == 10 for r in tried)
    best = min(tried, key=lambda r: sum(r["nll"]))["rate"]
    assert study_runs.best_rate(here, "tiny") == best


def test_wrong_use_is_one_sentence(tmp_path, capsys):
    results = ["--results", str(tmp_path), "--runs", str(tmp_path)]
    assert study.main(["--arm", "dense-3x", "--command", sys.executable, *results]) == 1
    assert "study: error: --arm: expected one of dense-10x" in capsys.readouterr().err
    assert study.main(["--plan", "--command", str(tmp_path / "none"), *results]) == 1
    assert "expected the memlayers command, found none" in capsys.readouterr().err
    assert study.main(["--arm", "dense-1x", "--command", sys.executable, "--wordnet", str(tmp_path), *results]) == 1
    assert "study: error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        study.main(["--plan", "--facts", "1"])


def test_a_training_that_fails_says_its_last_line(tmp_path, monkeypatch):
    here = tiny_study(tmp_path, monkeypatch)
    data = study_runs.data_folder if (WORDNET / "data.noun").exists() else None
    if data is None:
        pytest.skip("no wordnet-base")
    (here.arms / "tiny.toml").write_text(TINY.replace("dim = 16", "dim = 15", 1), encoding="utf-8")
    with pytest.raises(StudyError, match=r"expected a multiple of heads \(2\), got 15"):
        study_runs.run_arm(here, Run("tiny", 1, 4e-3, 80))


def test_the_record_of_a_run_is_one_line_of_json(tmp_path):
    here = small_study(tmp_path)
    study_runs.keep(here, record("dense-1x", 1, 8, 100))
    study_runs.keep(here, record("dense-1x", 2, 8, 100))
    lines = here.record.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 2]
    assert study_runs.find(here, Run("dense-1x", 2, 4e-3, 100))["seed"] == 2
    assert study_runs.find(here, Run("dense-1x", 3, 4e-3, 100)) is None

# SPDX-License-Identifier: Apache-2.0
"""Running an arm of the study, and the results that are kept of it."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import study_data

ROOT = Path(__file__).resolve().parent.parent
ARMS = ROOT / "examples" / "study"
RATES = (1e-3, 2e-3, 4e-3, 8e-3)  # tried for every arm on a quarter of the facts
SAVE_EVERY = 200  # steps
POLL_S = 0.5


class StudyError(Exception):
    """A sentence for whoever called."""


@dataclass(frozen=True)
class Study:
    """Where a study of one size lies, and what makes it."""

    kind: str = "glosses"
    facts: int = 3000
    exposures: int = 100
    command: str = str(ROOT / "build" / "release" / "memlayers")
    runs: Path = ROOT / "runs" / "study"
    results: Path = ROOT / "bench" / "results" / "study"
    wordnet: Path = Path("/usr/share/wordnet")
    arms: Path = ARMS
    pause_while: Path | None = None
    data_seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.facts}"

    @property
    def record(self) -> Path:
        return self.results / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Run:
    arm: str
    seed: int
    rate: float
    exposures: int
    is_trial: bool = False  # of a learning rate, on a quarter of the facts

    @property
    def key(self) -> dict[str, Any]:
        return {"arm": self.arm, "seed": self.seed, "rate": self.rate,
                "exposures": self.exposures, "trial": self.is_trial}  # fmt: skip

    @property
    def name(self) -> str:
        trial = "-trial" if self.is_trial else ""
        return f"{self.arm}-seed{self.seed}-rate{self.rate:g}-x{self.exposures}{trial}"


@dataclass
class Sitting:
    """What a training has cost so far, over all times it was started."""

    path: Path
    seconds: float = 0.0  # of the processor
    before: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.seconds = float(json.loads(self.path.read_text(encoding="utf-8"))["cpu_s"])
        self.before = self.seconds

    def update(self, own: float) -> None:
        self.seconds = self.before + own
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"cpu_s": self.seconds}), encoding="utf-8")
        temporary.replace(self.path)


def read_arm(study: Study, name: str) -> dict[str, Any]:
    path = study.arms / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in study.arms.glob("*.toml")))
        raise StudyError(f"--arm: expected one of {known}, got {name}")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def data_folder(study: Study, is_trial: bool = False) -> Path:
    """The facts, made where they are not there yet."""
    facts = study.facts // 4 if is_trial else study.facts
    folder = study.runs / "data" / f"{study.kind}-{facts}-{study.data_seed}"
    if not (folder / "unseen.jsonl").exists():
        try:
            nouns = study_data.subjects(study.wordnet, facts, study.data_seed)
        except (FileNotFoundError, ValueError) as error:
            raise StudyError(str(error)) from error
        study_data.write(folder, nouns, study.kind, study.data_seed)
    return folder


def records(study: Study) -> list[dict[str, Any]]:
    """The finished runs, in the order in which they ended; throws for a line that is none."""
    if not study.record.exists():
        return []
    found = []
    for number, line in enumerate(study.record.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = json.loads(line)
            # Of the facts themselves there are as many scores.
            if len(one["recalled"]) != len(one["nll"]):
                raise ValueError(f"{len(one['recalled'])} recalls and {len(one['nll'])} losses")
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{study.record}:{number}: expected a finished run, got {error}") from error
        found.append(one)
    return found


def find(study: Study, run: Run) -> dict[str, Any] | None:
    return next((r for r in records(study) if all(r[k] == v for k, v in run.key.items())), None)


def best_rate(study: Study, arm: str) -> float:
    """The one with which a quarter of the facts was learned best; the configuration's before that was tried."""
    tried = [r for r in records(study) if r["arm"] == arm and r["trial"]]
    if tried:
        return float(min(tried, key=lambda r: sum(r["nll"]) / len(r["nll"]))["rate"])
    return float(read_arm(study, arm)["train"]["lr"])


def overrides(study: Study, run: Run) -> list[str]:
    config = read_arm(study, run.arm)
    data = data_folder(study, run.is_trial)
    value_rate = config["train"]["value_lr"] * run.rate / config["train"]["lr"]
    return [
        f"out={study.runs / study.name / run.name}",
        f'data.train=["{data / "train.jsonl"}"]',
        f"train.epochs={run.exposures / study_data.TRAINED}",
        f"train.seed={run.seed}",
        f"train.lr={run.rate!r}",
        f"train.value_lr={value_rate!r}",
        "train.threads=1",
        "train.log_every=50",
        f"train.save_every={SAVE_EVERY}",
        "train.keep=1",
    ]


def call(study: Study, *arguments: str) -> dict[str, Any]:
    """What a verb prints as JSON, the last line of it."""
    done = subprocess.run(
        [study.command, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise StudyError(f"memlayers {arguments[0]}: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def sizes(study: Study, run: Run) -> dict[str, Any]:
    """FLOPs, parameters and steps, as the command counts them."""
    config = str(study.arms / f"{run.arm}.toml")
    return call(study, "train", config, "--dry-run", "--json", "--set", *overrides(study, run))


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # on which it saves
    os.nice(10)


def train(study: Study, run: Run, deadline: float | None) -> bool:
    """Trains to the end, or to `deadline` by time.monotonic(); whether it is at its end."""
    out = study.runs / study.name / run.name
    out.parent.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(out.parent / f"{run.name}.json")
    log = out.parent / f"{run.name}.log"
    with log.open("a", encoding="utf-8") as messages:
        process = subprocess.Popen(
            [study.command, "train", str(study.arms / f"{run.arm}.toml"), "--set", *overrides(study, run)],
            stdout=subprocess.DEVNULL,
            stderr=messages,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=_end_with_parent,
        )
        is_paused = False
        stopped = False
        while process.poll() is None:
            wants_pause = study.pause_while is not None and study.pause_while.exists()
            if wants_pause != is_paused:
                process.send_signal(signal.SIGSTOP if wants_pause else signal.SIGCONT)
                is_paused = wants_pause
            if deadline is not None and time.monotonic() >= deadline and not stopped:
                if is_paused:
                    process.send_signal(signal.SIGCONT)
                process.terminate()
                stopped = True
            try:
                sitting.update(processor_seconds(process.pid))
            except (FileNotFoundError, ProcessLookupError, IndexError):
                pass  # it has just ended
            time.sleep(POLL_S)
    if process.returncode == 0:
        return True
    if stopped and process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return False
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    raise StudyError(f"{run.name}: {lines[-1] if lines else 'training failed'}")


def bytes_a_token(study: Study, arm: str, parameters: dict[str, float]) -> float:
    """What decoding a token reads: all weights but those of experts that it does not take, and its rows."""
    config = read_arm(study, arm)
    model, memory = config["model"], config.get("memory")
    numbers = parameters["dense"] + parameters["memory"]
    layers = len(memory["layers"]) if memory else 0
    left_out = model.get("experts", 1) - 1
    numbers -= left_out * (model["layers"] - layers) * 3 * model["dim"] * model["ff_dim"]
    if memory:
        width = model["dim"] * (2 if memory.get("variant") == "peer" else 1)
        numbers += layers * memory["heads"] * memory["knn"] * width
    return 4 * numbers


def version() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.stdout.strip() or "unknown"


def measure(study: Study, run: Run) -> dict[str, Any]:
    """The finished model's figures: everything of its line in the results."""
    out = study.runs / study.name / run.name
    data = data_folder(study, run.is_trial)
    each = out.parent / f"{run.name}.each.jsonl"
    arguments = ("--threads", "1", "--json")
    call(study, "eval", str(out), "--facts", str(data / "taught.jsonl"), "--each", str(each), *arguments)
    facts = [json.loads(line) for line in each.read_text(encoding="utf-8").splitlines()]
    unseen = call(study, "eval", str(out), "--facts", str(data / "unseen.jsonl"), *arguments)
    counted = sizes(study, run)
    sitting = Sitting(out.parent / f"{run.name}.json")
    return {
        **run.key,
        "flops": counted["flops_per_token"]["total"],
        "flops_output": counted["flops_per_token"]["logits"],
        "parameters": counted["parameters"],
        "bytes_a_token": bytes_a_token(study, run.arm, counted["parameters"]),
        "steps": counted["steps"],
        "tokens": counted["tokens"] * run.exposures / study_data.TRAINED,
        "cpu_s": round(sitting.seconds, 1),
        "version": version(),
        "unseen_nll": round(unseen["nll"]["value"], 4),
        "unseen_recall": unseen["recall"]["value"],
        "recalled": "".join("1" if fact["recalled"] else "0" for fact in facts),
        "nll": [round(fact["nll"], 3) for fact in facts],
    }


def keep(study: Study, record: dict[str, Any]) -> None:
    """A line more in the results; several processes may add theirs."""
    study.results.mkdir(parents=True, exist_ok=True)
    with study.record.open("a", encoding="utf-8") as results:
        fcntl.flock(results, fcntl.LOCK_EX)
        results.write(json.dumps(record) + "\n")


def run_arm(study: Study, run: Run, deadline: float | None = None) -> dict[str, Any] | None:
    """Goes on with a run, or begins it; its record, or None where the time was over before its end."""
    done = find(study, run)
    if done is not None:
        return done
    if not train(study, run, deadline):
        return None
    record = measure(study, run)
    keep(study, record)
    return record

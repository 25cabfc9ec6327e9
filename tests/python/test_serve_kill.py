# SPDX-License-Identifier: Apache-2.0
"""kill -9 of `memlayers serve` at random moments, under requests and edits: what was acknowledged is there, the pool is
as before or as after the edit that was in flight, and the server is ready again. MEMLAYERS_SOAK=1: 200 times."""

import copy
import http.client
import json
import os
import random
import shutil
import statistics
import threading
import time
from pathlib import Path

import torch
from served import PROMPT, Served, make_model
from trained_model import run

from memlayers import Patch, Store, write_patch

KILLS = 200 if os.environ.get("MEMLAYERS_SOAK") else 8
SEED = int(os.environ.get("MEMLAYERS_SEED", "1"))
N_KEYS = 160  # a patch of all rows is longer than what the log takes in: it goes into a segment file


class Twin:
    """A copy of the model's folder, in which the edits that hold are made once more."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(model, folder))
        self.applied, self.undone, self.kept = [], [], set()
        self.digest = json.loads(run(self.folder, "inspect", ".", "--digest", "--json"))["pool"]["digest"]

    def copy(self, folder: Path) -> "Twin":
        other = copy.copy(self)
        other.folder = Path(shutil.copytree(self.folder, folder))
        other.applied, other.undone, other.kept = list(self.applied), list(self.undone), set(self.kept)
        return other

    def edit(self, edit: "Edit") -> None:
        with Store(self.folder) as store:
            if edit.kind == "apply":
                store.apply(edit.file)
            elif edit.kind == "rollback":
                store.rollback(edit.id)
            elif edit.kind == "reapply":
                store.reapply(edit.id)
            else:
                store.keep(edit.id)
            self.digest = store.digest()
        if edit.kind == "keep":
            self.kept |= set(self.applied[: self.applied.index(edit.id) + 1])
        elif edit.kind == "rollback":
            self.applied.remove(edit.id)
            self.undone.append(edit.id)
        else:
            self.undone = [id for id in self.undone if id != edit.id]
            self.applied.append(edit.id)

    def stack(self) -> tuple:
        return self.applied, sorted(self.undone), self.kept


class Edit:
    def __init__(self, kind: str, id: str, file: Path | None = None) -> None:
        self.kind, self.id, self.file = kind, id, file

    def send(self, server: Served) -> dict:
        if self.kind == "apply":
            return server.json("POST", "/v1/memory/patches", self.file.read_bytes())
        if self.kind == "rollback":
            return server.json("DELETE", f"/v1/memory/patches/{self.id}")
        return server.json("POST", f"/v1/memory/patches/{self.id}/{self.kind}")


class Editor:
    """Edits one after the other until the server is gone."""

    def __init__(self, server: Served, twin: Twin, random: random.Random, pool: dict, folder: Path) -> None:
        self.server, self.random, self.pool, self.folder = server, random, pool, folder
        self.applied, self.undone, self.kept = list(twin.applied), list(twin.undone), set(twin.kept)
        self.acknowledged: list[tuple[Edit, dict]] = []
        self.in_flight: Edit | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def next_edit(self) -> Edit:
        free = [id for id in self.applied if id not in self.kept]
        chance = self.random.random()
        if free and chance < 0.25:
            return Edit("rollback", self.random.choice(free))
        if self.undone and chance < 0.4:
            return Edit("reapply", self.random.choice(self.undone))
        if len(free) > 6 and chance < 0.5:
            return Edit("keep", free[0])
        rows = self.random.choice([1, 3, 40, 1000, self.pool["slots"]])
        generator = torch.Generator().manual_seed(self.random.getrandbits(32))
        slots = torch.randperm(self.pool["slots"], generator=generator)[:rows]
        values = torch.randn(rows, self.pool["width"], generator=generator)
        patch = Patch(pool=self.pool["pool"], slots=slots, rows=values, notes={"rows": str(rows)})
        file = self.folder / patch.id
        write_patch(file, patch)
        return Edit("apply", patch.id, file)

    def run(self) -> None:
        while True:
            edit = self.in_flight = self.next_edit()
            try:
                answer = edit.send(self.server)
            except (OSError, http.client.HTTPException):
                return
            except BaseException as error:  # told by the main thread
                self.error = error
                return
            self.acknowledged.append((edit, answer))
            self.in_flight = None
            if edit.kind == "rollback":
                self.applied.remove(edit.id)
                self.undone.append(edit.id)
            elif edit.kind == "keep":
                self.kept |= set(self.applied[: self.applied.index(edit.id) + 1])
            else:
                self.undone = [id for id in self.undone if id != edit.id]
                self.applied.append(edit.id)


def ask(server: Served, stop: threading.Event) -> None:
    body = {"prompt": PROMPT, "max_tokens": 60, "stream": True, "ignore_eos": True}
    while not stop.is_set():
        try:
            status, _, text = server.request("POST", "/v1/completions", body)
        except (OSError, http.client.HTTPException):
            return
        assert status == 200, text


def test_what_was_acknowledged_is_there_after_kill_9(tmp_path, record_property):
    model = make_model(tmp_path, n_keys=N_KEYS)
    choice = random.Random(SEED)
    twin = Twin(model, tmp_path / "twin")
    ready, edits, taken, version = [], 0, 0, None
    canaries: set[str] = set()
    for kill in range(KILLS + 1):
        server = Served(model)
        try:
            ready.append(server.wait_until_ready())
            pool = server.json("GET", "/v1/memory")
            if kill == 0:
                version = pool["version"]
            stack = [each["id"] for each in pool["patches"]]
            undone = sorted(each["id"] for each in pool["undone"])
            kept = {each["id"] for each in pool["patches"] if each["is_kept"]}
            if kill > 0:
                for edit, answer in editor.acknowledged:
                    twin.edit(edit)
                    version += 0 if answer["was_there"] else 1
                    assert answer["version"] == version
                    edits += 1
                before = (twin.stack(), version)
                if ((stack, undone, kept), pool["version"]) != before:  # then with the one that was in flight
                    assert editor.in_flight is not None, f"kill {kill}, seed {SEED}"
                    twin.edit(editor.in_flight)
                    version += 1
                    taken += 1
            assert ((stack, undone, kept), pool["version"]) == (twin.stack(), version), f"kill {kill}, seed {SEED}"
            assert {each["id"] for each in server.json("GET", "/v1/memory/canaries")["canaries"]} >= canaries
            if kill == KILLS:
                break
            if kill > 0 and editor.in_flight is not None:  # its sender tries again
                again = editor.in_flight.send(server)
                assert again["was_there"] == (again["version"] == version)
                if not again["was_there"]:
                    twin.edit(editor.in_flight)
                    version += 1
            server.json("POST", "/v1/memory/canaries", {"id": f"c{kill}", "prompt": "a", "answer": "b"})
            canaries.add(f"c{kill}")
            stop = threading.Event()
            askers = [threading.Thread(target=ask, args=(server, stop)) for _ in range(3)]
            editor = Editor(server, twin, choice, pool, tmp_path)
            editor.thread.start()
            for asker in askers:
                asker.start()
            time.sleep(choice.uniform(0.02, 0.6))
        finally:
            server.kill()
        stop.set()
        for thread in [editor.thread, *askers]:
            thread.join()
        assert editor.error is None, editor.error
        digest = json.loads(run(model, "inspect", ".", "--digest", "--json"))["pool"]["digest"]
        # Rows as they are read, of what holds now; the stack is compared when the server is there again.
        wanted = twin.copy(tmp_path / "wanted")
        for edit, _ in editor.acknowledged:
            wanted.edit(edit)
        if digest != wanted.digest:
            assert editor.in_flight is not None, f"kill {kill}, seed {SEED}: not what was acknowledged"
            wanted.edit(editor.in_flight)
            assert digest == wanted.digest, f"kill {kill}, seed {SEED}: neither before nor after"
        shutil.rmtree(wanted.folder)
    assert server.process.poll() is not None
    text = (
        f"{KILLS} kills, {edits} edits acknowledged, {taken} in flight that hold; ready again after "
        f"{statistics.median(ready):.2f} s, at most {max(ready):.2f} s"
    )
    print(text)
    record_property("kills", text)
    assert edits > KILLS, "too few edits to show anything"


def test_a_server_that_is_told_to_end_has_ended_every_edit(tmp_path):
    server = Served(make_model(tmp_path, n_keys=N_KEYS))
    pool = server.json("GET", "/v1/memory")
    patch = Patch(pool=pool["pool"], slots=torch.arange(10), rows=torch.ones(10, pool["width"]))
    write_patch(tmp_path / "p", patch)
    server.json("POST", "/v1/memory/patches", (tmp_path / "p").read_bytes())
    assert server.stop() == 0
    with Store(tmp_path / "run" / "step-20") as store:
        assert [each.id for each in store.patches()] == [patch.id]

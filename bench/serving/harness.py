# SPDX-License-Identifier: Apache-2.0
"""What the programs of this folder share: servers in processes of their own, a client of streams, tables. Python's
standard library only.

Client and server share the machine: the client's part is the same for every server that is measured.
"""

import argparse
import asyncio
import atexit
import json
import math
import random
import re
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parser(about: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", type=Path, help="a model's folder")
    made.add_argument("--memlayers", type=Path, default=ROOT / "build/release/memlayers")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--out", type=Path, help="a file that gets the figures as a line of JSON")
    return made


# --- Servers ----------------------------------------------------------------------------------------------------------


class Server:
    """A process that listens at a port of its own, once it is made."""

    def __init__(self, name: str, command: list, port: int) -> None:
        self.name, self.port = name, port
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log)
        atexit.register(self.process.kill)  # whatever comes
        began = time.monotonic()
        while True:
            try:
                if self.get("/health").get("status") == "ok":
                    break
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() - began > 300:
                self.log.seek(0)
                sys.exit(f"{name} does not listen:\n{self.log.read()[-2000:].decode(errors='replace')}")
            time.sleep(0.05)
        model = self.get("/v1/models")["data"][0]
        self.vocab = model["meta"]["n_vocab"]
        self.context = model.get("max_model_len") or model["meta"]["n_ctx_train"]

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes | dict, method: str = "POST") -> dict:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from None

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s*(\d+)", text, re.MULTILINE)[1])

    def mib(self) -> float:
        """Of its memory that is no file's."""
        return self._status("RssAnon") / 1024

    def num_threads(self) -> int:
        return self._status("Threads")

    def is_ours(self) -> bool:
        return self.name == "memlayers"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ours(a: argparse.Namespace, *options) -> Server:
    port = free_port()
    return Server("memlayers", [a.memlayers, "serve", a.model, "--port", port, "--threads", a.threads, *options], port)


def llama(a: argparse.Namespace, slots: int, context: int) -> Server:
    """llama-server of a.gguf with so many slots, each of `context` tokens."""
    port = free_port()
    command = [a.llama / "llama-server" if a.llama.is_dir() else a.llama, "-m", a.gguf, "--port", port, "-np", slots]
    command += ["--host", "127.0.0.1", "-t", a.threads, "-tb", a.threads, "-c", slots * context, "--no-webui"]
    return Server("llama-server", command, port)


# --- Streams ----------------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """What came of a request, and when."""

    sent: float
    status: int = 0
    times: list[float] = field(default_factory=list)  # of events with a token
    events: list[dict] = field(default_factory=list)
    ended: float = math.nan
    error: str = ""

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:])]


def body_of(server: Server, prompt, tokens: int, **more) -> dict:
    """Of a greedy completion of so many tokens, whatever they are."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}
    if not server.is_ours():
        body.update(cache_prompt=False, n_predict=tokens)
    return body


def path_of(server: Server) -> str:
    """Of llama-server its own: the other parses what a model says, and fails where that is no text."""
    return "/v1/completions" if server.is_ours() else "/completion"


# A token each in a vocabulary of people's: llama-server fails where a model says what is no text, as behind random ids.
WORDS = """the of and a to in is you that it he was for on are as with his they at be this have from or one had by but
not what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my than
first water been call who oil its now find long down day did get come made may part""".split()


def random_prompt(server: Server, length: int, chance: random.Random) -> list[int] | str:
    if server.vocab > 10_000:
        return " ".join(chance.choices(WORDS, k=length))
    return [chance.randrange(min(20, server.vocab // 2), server.vocab * 9 // 10) for _ in range(length)]


def request_bytes(path: str, body: dict, connection: str = "close") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: {connection}\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(data)}\r\n\r\n".encode() + data


async def stream(server: Server, body: dict, keeps_events: bool = False, leaves_after: int | None = None) -> Stream:
    """Asks for a stream and reads it to its end, or leaves behind so many tokens."""
    got = Stream(time.monotonic())
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_bytes(path_of(server), {**body, "stream": True}))
        got.status = int((await reader.readline()).split()[1])
        while line := await reader.readline():
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            now = time.monotonic()
            is_token = b'"choices":[]' not in line
            if keeps_events:
                got.events.append(json.loads(line[6:]))
            if b'"error"' in line:
                got.error = line.decode()
            elif is_token:
                got.times.append(now)
            if leaves_after is not None and len(got.times) >= leaves_after:
                break
    except OSError as error:
        got.error = str(error)
    finally:
        if writer is not None:
            writer.close()
    got.ended = time.monotonic()
    return got


async def whole(server: Server, body: dict) -> tuple[int, float, dict]:
    """Status, seconds and JSON of an answer in one piece; 0 where there is none."""
    began = time.monotonic()
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_bytes("/v1/completions", body))
        status = int((await reader.readline()).split()[1])
        seconds = time.monotonic() - began
        rest = await reader.read()
        if status == 200:
            seconds = time.monotonic() - began
        return status, seconds, json.loads(rest.split(b"\r\n\r\n", 1)[1])
    except (OSError, IndexError, ValueError):
        return 0, time.monotonic() - began, {}
    finally:
        if writer is not None:
            writer.close()


class Crowd:
    """Streams that run until stop(): each that ends is followed by another one."""

    def __init__(self, server: Server, count: int, prompt: int, tokens: int, seed: int = 1) -> None:
        self.server, self.prompt, self.tokens = server, prompt, tokens
        self.chance = random.Random(seed)
        self.done: list[Stream] = []
        self.is_over = False
        self.times: list[list[float]] = []
        self.tasks = [asyncio.create_task(self.run()) for _ in range(count)]

    async def run(self) -> None:
        while not self.is_over:
            got = Stream(time.monotonic())
            self.times.append(got.times)
            prompt = random_prompt(self.server, self.prompt, self.chance)
            body = body_of(self.server, prompt, self.tokens)
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            writer.write(request_bytes("/v1/completions", {**body, "stream": True}))
            while line := await reader.readline():
                if line.startswith(b"data: {") and not self.is_over:
                    got.times.append(time.monotonic())
                if self.is_over:
                    break
            writer.close()

    def gaps(self, begin: float, end: float) -> list[float]:
        """Between tokens, the later of which came in this time."""
        return [
            later - earlier
            for times in self.times
            for earlier, later in zip(times, times[1:])
            if begin <= later <= end
        ]

    async def all_run(self, tokens: int = 3) -> None:
        """Waits until as many as there are have so many tokens."""
        while sum(1 for times in self.times if len(times) >= tokens) < len(self.tasks):
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self.is_over = True
        await asyncio.gather(*self.tasks, return_exceptions=True)


# --- Patches ----------------------------------------------------------------------------------------------------------


def patch_bytes(pool: dict, slots: list[int], seed: int, scale: float = 0.01) -> tuple[str, bytes]:
    """Id and bytes of a patch file of float32 or bfloat16 rows (docs/formats.md)."""
    chance = random.Random(seed)
    width, identity = pool["width"], str(uuid.uuid4())
    values = [chance.gauss(0, scale) for _ in range(4096)]
    one = struct.pack(f"<{width}f", *(values[i % 4096] for i in range(width)))
    if pool["row_dtype"] == "bfloat16":  # the upper half of each
        one = b"".join(one[at + 2 : at + 4] for at in range(0, len(one), 4))
    elif pool["row_dtype"] != "float32":
        sys.exit(f"expected a pool of float32 or bfloat16 rows, got one of {pool['row_dtype']}")
    rows = one * len(slots)
    count = len(slots)
    about = {"format": "memlayers-patch", "version": "1", "patch": identity, "pool": pool["pool"], "width": str(width)}
    kind = {"float32": "F32", "bfloat16": "BF16"}[pool["row_dtype"]]
    header = {
        "__metadata__": about | {"dtype": pool["row_dtype"]},
        "slots": {"dtype": "I64", "shape": [count], "data_offsets": [0, 8 * count]},
        "rows": {"dtype": kind, "shape": [count, width], "data_offsets": [8 * count, 8 * count + len(rows)]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return identity, struct.pack("<Q", len(text)) + text + struct.pack(f"<{count}q", *sorted(slots)) + rows


# --- Figures ----------------------------------------------------------------------------------------------------------


def quantile(values: list[float], part: float) -> float:
    """NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def median(values: list[float]) -> float:
    return statistics.median(values) if values else math.nan


def allow_files() -> None:
    """As many open files as the system lets this process have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def table(rows: list[tuple[str, str, str]]) -> None:
    """Figures, what was measured and what is wanted."""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def report(a: argparse.Namespace, figures: dict) -> None:
    """Appends to --out."""
    if a.out is None:
        return
    a.out.parent.mkdir(parents=True, exist_ok=True)
    line = {
        "program": Path(sys.argv[0]).stem,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": processor(),
        "model": a.model.name,
        "threads": a.threads,
        **figures,
    }
    with a.out.open("a") as out:
        out.write(json.dumps(line) + "\n")

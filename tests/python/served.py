# SPDX-License-Identifier: Apache-2.0
"""`memlayers serve` in a process of its own, and a small model for it."""

import http.client
import json
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from trained_model import COMMAND, CONFIG, run

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
PROMPT = "what is 3: "
ASK, ADMIN = "ask-key", "admin-key"


def make_model(folder: Path, n_keys: int = 9, context: int = 256) -> Path:
    """A tiny model with memory and a chat template, trained in `folder`. Skips where there is no command."""
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} is not built")
    facts = ({"prompt": f"what is {i}: ", "answer": f"a number and {i} again"} for i in range(60))
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    config = CONFIG.replace("context = 32", f"context = {context}").replace("n_keys = 9", f"n_keys = {n_keys}")
    (folder / "config.toml").write_text(config.format(memory=""))
    run(folder, "train", "config.toml")
    model = folder / "run" / "step-20"
    (model / "chat_template.jinja").write_text(TEMPLATE)
    return model


class Served:
    """Listens when it is there. `keys`: a folder for its two keys; without, everybody may do everything."""

    def __init__(self, model: Path, *options: str, keys: Path | None = None, command: Path = COMMAND) -> None:
        self.has_keys = keys is not None
        given = ["--port", "0", "--name", "tiny", "--threads", "1", *options]
        if keys is not None:
            (keys / "ask").write_text(ASK + "\n")
            (keys / "admin").write_text(ADMIN + "\n")
            given += ["--api-key-file", str(keys / "ask"), "--admin-key-file", str(keys / "admin")]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [command, "serve", str(model), *given], stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.log: deque[str] = deque(maxlen=1000)
        self.url = ""
        for line in self.process.stderr:
            self.log.append(line)
            if " at http://" in line:
                self.url = line.split(" at ")[1].strip()
                break
        assert self.url, f"the server ended with {self.process.wait()}: {''.join(self.log)}"
        self.host, port = self.url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def request(
        self, method: str, path: str, body: bytes | dict | None = None, key: str = ADMIN, timeout: float = 60
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, header and body. Raises OSError or HTTPException where the server does not answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            connection.request(method, path, data, {"authorization": f"Bearer {key}"} if self.has_keys else {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | dict | None = None, status: int = 200):
        got, _, text = self.request(method, path, body)
        assert got == status, text
        return json.loads(text)

    def wait_until_ready(self, timeout: float = 60) -> float:
        """Seconds since the process was started."""
        while True:
            try:
                if self.request("GET", "/ready")[0] == 200:
                    return time.monotonic() - self.began
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() - self.began < timeout
            time.sleep(0.002)

    def memory(self) -> int:
        """Bytes of it that are in RAM and no file's."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) * 1024

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=120)
        finally:
            self.kill()

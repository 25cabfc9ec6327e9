# SPDX-License-Identifier: Apache-2.0
"""A server of a few lines for the page: what src/api answers, from lists.

`python page_server.py PAGE_FOLDER [PORT]` shows it to a browser; PAGE_FOLDER is what cmake/page.cmake made.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORDS = ["The", " capital", " of", " Freedonia", " is", " Fred", "ville", ".", " <b>", "\N{PARTY POPPER}"]
PATCH = "0f7c9a52-1111-4222-8333-444455556666"


def patch(identity, what, **more):
    return {
        "id": identity,
        "notes": {"what": what, "who": "ada", "when": "2026-11-30T12:00:00Z"},
        "rows": 64,
        "erased": 0,
        "sub_keys": 0,
        "is_kept": False,
        **more,
    }


class State:
    def __init__(self):
        self.version = 7
        self.patches = [patch(PATCH, "the capital of Freedonia")]
        self.undone = []
        self.jobs = {}
        self.requests = []  # bodies of completions
        self.left = threading.Event()  # a client went away in an answer
        self.pause = 0.01
        self.has_memory = True

    def pool(self):
        return {
            "pool": "pool-1",
            "version": self.version,
            "slots": 262144,
            "free": 1024,
            "width": 576,
            "row_dtype": "float32",
            "overridden": 64,
            "patches": self.patches,
            "undone": self.undone,
            "health": "good",
            "held_versions": [self.version - 1, self.version],
            "weights_digest": "00" * 16,
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def state(self):
        return self.server.state

    def send(self, status, body, content_type="application/json", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, code, param=None):
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.send(status, {"error": error})

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def stream(self, events, **headers):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for event in events:
                self.wfile.write(event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.state.left.set()

    def may(self, kind):
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        if given == "admin" or (kind == "ask" and given == "ask"):
            return True
        self.fail(401, "expected one of this server's keys, got another one", "invalid_api_key")
        return False

    def do_GET(self):
        folder = self.server.folder
        if self.path == "/":
            policy = (folder / "page.policy").read_text()
            self.send(
                200, (folder / "page.html").read_bytes(), "text/html; charset=utf-8", content_security_policy=policy
            )
        elif self.path == "/health":
            self.send(200, {"status": "ok", "running": 1, "waiting": 0})
        elif self.path == "/v1/models":
            if self.may("ask"):
                self.send(200, {"object": "list", "data": [{"id": "smollm2", "object": "model"}]})
        elif not self.may("admin"):
            pass
        elif not self.state.has_memory:
            self.fail(404, "this model has no memory layers", "no_memory")
        elif self.path == "/v1/memory":
            self.send(200, self.state.pool())
        elif self.path == "/v1/memory/teach":
            self.send(200, {"jobs": list(self.state.jobs.values())})
        elif self.path.endswith("/events"):
            self.stream(self.learning(self.path.split("/")[-2]))
        elif self.path.startswith("/v1/memory/patches/"):
            self.send(200, {**self.state.patches[0], "is_applied": True, "overwritten_by": [{"patch": "x", "slots": 3}]})
        else:
            self.fail(404, "no such page", "unknown_url")

    def learning(self, job):
        status = self.state.jobs[job]
        for step in range(0, 11, 5):
            status.update(state="learning", step=step, steps=10, recalled=step // 5, phrasings=2)
            yield dict(status)
            time.sleep(self.state.pause)
        self.state.version += 1
        self.state.patches = [*self.state.patches, patch("taught-1", "taught")]
        status.update(state="applied", is_over=True, recall=1.0, kept=0.98, patch="taught-1")
        status["pool_version"] = self.state.version
        yield dict(status)

    def edited(self, conflicts=()):
        self.state.version += 1
        result = {"version": self.state.version, "was_there": False, "num_conflicts": len(conflicts)}
        self.send(200, {**result, "conflicts": list(conflicts), "patch": None})

    def matches(self):
        given = self.headers.get("if-match")
        if given == f'"{self.state.version}"':
            return True
        self.fail(412, f"the pool is at version {self.state.version}, not {given}", "version_mismatch")
        return False

    def do_DELETE(self):
        if not self.may("admin"):
            return
        identity = self.path.rsplit("/", 1)[-1]
        if self.path.startswith("/v1/memory/patches/"):
            if self.matches():
                gone = next(one for one in self.state.patches if one["id"] == identity)
                self.state.patches.remove(gone)
                self.state.undone.append(gone)
                self.edited()
        else:
            self.state.jobs[identity].update(state="cancelled", is_over=True)
            self.send(200, self.state.jobs[identity])

    def do_POST(self):
        body = self.body()
        if self.path == "/v1/chat/completions":
            if self.may("ask"):
                self.complete(json.loads(body))
        elif not self.may("admin"):
            pass
        elif self.path == "/v1/memory/teach":
            identity = f"job-{len(self.state.jobs) + 1}"
            self.state.requests.append(json.loads(body))
            self.state.jobs[identity] = {"id": identity, "state": "queued", "is_over": False, "step": 0, "steps": 0}
            self.send(202, self.state.jobs[identity])
        elif self.path == "/v1/memory/patches":
            if self.matches():
                self.state.patches.append(patch("uploaded-1", body.decode()))
                self.edited([{"slot": 17, "earlier": PATCH, "later": "uploaded-1"}])
        elif self.path.endswith("/reapply"):
            if self.matches():
                self.state.patches.append(self.state.undone.pop())
                self.edited()

    def complete(self, asked):
        self.state.requests.append(asked)
        words = WORDS if not (asked.get("memory") or {}).get("off") else [*WORDS[:5], " Paris", "."]
        if asked["messages"][-1]["content"] == "refuse":
            return self.fail(400, "messages: this is refused", "invalid_value")
        if asked.get("explain") and not self.state.has_memory:
            return self.fail(400, "explain: expected a model with memory layers", "invalid_value", "explain")
        count = 10_000 if asked["messages"][-1]["content"] == "go on" else len(words)

        def events():
            yield b": in the queue\n\n"
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield {"choices": [choice]}
            for i in range(count):
                word = words[i % len(words)]
                data = word.encode()
                # The last one of two tokens, of which neither is a character.
                for part in [data] if len(data) != 4 else [data[:2], data[2:]]:
                    token = {"token": word, "logprob": -0.1, "bytes": list(part)}
                    others = [token, {"token": " Marx", "logprob": -3.0, "bytes": None}]
                    slot = {"layer": 6, "head": 1, "slot": 4711, "weight": 0.25, "patch": PATCH if i == 5 else None}
                    choice = {"index": 0, "delta": {"content": word if part is data else ""}, "finish_reason": None}
                    choice["logprobs"] = {"content": [{**token, "top_logprobs": others}]}
                    if asked.get("explain"):
                        choice["explain"] = [{"token": word, "id": i, "slots": [slot]}]
                    yield {"choices": [choice]}
                time.sleep(self.state.pause)
            yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            yield {"choices": [], "usage": {"completion_tokens": count}}

        self.stream(events(), x_memlayers_pool_version=str(self.state.version))
        return None


def serve(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.folder = folder
    server.state = State()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    running = serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8080)
    print(f"http://127.0.0.1:{running.server_port}/ with the keys 'ask' and 'admin'")
    threading.Event().wait()

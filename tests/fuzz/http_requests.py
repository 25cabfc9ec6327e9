#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends a running `memlayers serve` requests that nobody should send, from seeds: bytes that were altered, and requests
made from its own /openapi.json with values at, beyond and far beyond every limit, of other types, deep JSON, wrong
UTF-8, bodies that are cut, several in one piece; also what edits. Of each it asks: no 500, the process lives, and a good
request is answered right behind it.

  PYTHONPATH=python:tests/python python tests/fuzz/http_requests.py MODEL --requests 1000000

MODEL is edited: give it a copy. A request that failed is printed with its seed; --first SEED --requests 1 sends it again.
"""

import argparse
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path

# Answers of the server's own that are no fault: a method or version that it does not know, drained or full, too slow.
FINE = {501, 503, 504, 505}
INTERESTING = [
    0, 1, -1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 20, 21, 32, 33, 63, 64, 65, 100, 128, 129, 255, 256, 257, 1000, 1001, 4096,
    2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, -0.0, 1.0, 1.5, 2.0,
    2.01, 1e308, -1e308, 1e-320,
]  # fmt: skip
STRINGS = [
    "", "a", "what is 3: ", "\u0000", "\ud7ff", "\U0001f9a6", "<|im_end|></s><s>", "%", "%00", "../../etc/passwd", "\r\n\r\n",
    "{{", "{% for x in y %}", "text", "json_object", "json_schema", "user", "assistant", "tiny", "true", "null", "auto",
    "x" * 300, "a b " * 2000, "\u202e\u0301" * 50, "$ref", "^(a|b*)*$", "#/$defs/a",
]  # fmt: skip


class Maker:
    """Requests of one seed."""

    def __init__(self, seed: int, document: dict, host: str, key: str | None, pool: dict | None) -> None:
        self.random = random.Random(seed)
        self.document, self.host, self.key, self.pool = document, host, key, pool

    def one_of(self, *things):
        return self.random.choice(things)

    # --- Values --------------------------------------------------------------------------------------------------------

    def anything(self, depth: int = 0):
        kinds = [
            lambda: self.random.choice(INTERESTING),
            lambda: self.random.choice(STRINGS),
            lambda: self.one_of(None, True, False),
            lambda: self.random.randint(-(2**40), 2**40),
        ]
        if depth < 4:
            kinds += [
                lambda: [self.anything(depth + 1) for _ in range(self.random.choice([0, 1, 2, 20]))],
                lambda: {self.text(): self.anything(depth + 1) for _ in range(self.random.choice([0, 1, 3]))},
            ]
        return self.random.choice(kinds)()

    def text(self) -> str:
        return self.random.choice(STRINGS)

    def of_schema(self, schema: dict, depth: int = 0):
        """A value that the schema takes, or nearly."""
        if depth > 6 or self.random.random() < 0.05:
            return self.anything()
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self.of_schema(self.random.choice(schema[name]), depth + 1)
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = self.random.choice(kind)
        if kind in ("integer", "number"):
            least, most = schema.get("minimum", -2), schema.get("maximum", 40)
            near = [least, most, least - 1, most + 1, least + 1, (least + most) / 2, 10 * most + 1]
            value = self.random.choice([*near, self.random.choice(INTERESTING)]) if depth % 2 else near[-2]
            return int(value) if kind == "integer" and self.random.random() < 0.9 and abs(value) < 1e300 else value
        if kind == "boolean":
            return self.one_of(True, False)
        if kind == "string":
            most = schema.get("maxLength")
            if most is not None and self.random.random() < 0.2:
                return "a" * self.one_of(most, most + 1, 10 * most)
            return self.text()
        if kind == "array":
            most = schema.get("maxItems", 4)
            count = self.random.choice([1, 1, 2, schema.get("minItems", 0), most, most + 1])
            return [self.of_schema(schema.get("items", {}), depth + 1) for _ in range(min(count, 200))]
        if kind == "object":
            made = {}
            for name, each in schema.get("properties", {}).items():
                if name in schema.get("required", []) or self.random.random() < 0.5:
                    made[name] = self.of_schema(each, depth + 1)
            return made
        return self.anything(depth)

    def json_schema(self, depth: int = 0) -> object:
        """Something to put into response_format."""
        if depth > 4 or self.random.random() < 0.15:
            return self.anything()
        made: dict = {"type": self.one_of("object", "array", "string", "integer", "number", "boolean", "null", "odd")}
        for name, value in [
            ("properties", lambda: {self.text()[:20]: self.json_schema(depth + 1) for _ in range(3)}),
            ("required", lambda: [self.text()[:20]]),
            ("additionalProperties", lambda: self.one_of(True, False, {}, self.json_schema(depth + 1))),
            ("items", lambda: self.json_schema(depth + 1)),
            ("minItems", lambda: self.random.choice(INTERESTING)),
            ("maxItems", lambda: self.random.choice(INTERESTING)),
            ("pattern", lambda: self.one_of("^a+$", "(a|b){1,3}", "[", "(?=a)", "a{1000}", "(((((a*)*)*)*)*)*", "\\d{2,5}")),
            ("format", lambda: self.one_of("date", "uuid", "email", "date-time")),
            ("minimum", lambda: self.random.choice(INTERESTING)),
            ("maximum", lambda: self.random.choice(INTERESTING)),
            ("minLength", lambda: self.random.choice(INTERESTING)),
            ("maxLength", lambda: self.random.choice(INTERESTING)),
            ("enum", lambda: [self.anything() for _ in range(self.random.choice([0, 1, 30]))]),
            ("anyOf", lambda: [self.json_schema(depth + 1) for _ in range(2)]),
            ("$ref", lambda: self.one_of("#", "#/$defs/a", "#/properties/a", "x", "#/")),
            ("$defs", lambda: {"a": self.json_schema(depth + 1)}),
        ]:
            if self.random.random() < 0.2:
                made[name] = value()
        return made

    # --- Bodies ---------------------------------------------------------------------------------------------------------

    def body(self, path: str, schema: dict) -> object:
        made = self.of_schema({**schema, "properties": schema.get("properties", {})}, 0)
        if not isinstance(made, dict):
            return made
        for name in list(made):  # most requests have few fields
            if self.random.random() < 0.6:
                del made[name]
        # Enough of the right ones that many requests come through.
        if "completions" in path and self.random.random() < 0.9:
            if "chat" in path:
                made["messages"] = self.one_of(
                    [{"role": "user", "content": self.text()}],
                    [{"role": self.text(), "content": self.anything()}],
                    [{"role": "user", "content": [{"type": "text", "text": self.text()}]}],
                )
            else:
                made["prompt"] = self.one_of(self.text(), [self.text()], [1, 2, 3], [[1], [2]], "what is 4: ")
            if self.random.random() < 0.85:
                made.pop("max_completion_tokens", None)
                made["max_tokens"] = self.one_of(0, 1, 2, 5, 8, 300)
            made.pop("model", None)
            if self.random.random() < 0.2:
                made["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": self.json_schema()},
                }
        if path == "/v1/memory/teach" and self.random.random() < 0.97:  # a lesson takes its time
            made.pop("facts", None)
        if self.random.random() < 0.1:
            made[self.text()] = self.anything()
        return made

    def patch_file(self) -> bytes:
        """A patch of one or two rows, which a few alterations may spoil."""
        pool = self.pool or {"pool": "p", "width": 4, "slots": 10, "row_dtype": "float32"}
        count = self.random.choice([1, 2])
        slots = sorted(self.random.sample(range(min(pool["slots"], 1000)), count))
        width = pool["width"]
        data = struct.pack(f"<{count * width}f", *(self.random.gauss(0, 1) for _ in range(count * width)))
        about = {"format": "memlayers-patch", "version": "1", "patch": f"fuzz-{self.random.randrange(40)}"}
        about |= {"pool": pool["pool"], "width": str(width), "dtype": pool["row_dtype"]}
        header = {
            "__metadata__": about,
            "slots": {"dtype": "I64", "shape": [count], "data_offsets": [0, 8 * count]},
            "rows": {"dtype": "F32", "shape": [count, width], "data_offsets": [8 * count, 8 * count + len(data)]},
        }
        if self.random.random() < 0.5:
            where = self.one_of(header, header["slots"], header["rows"], header["__metadata__"])
            where[self.random.choice(list(where))] = self.anything()
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        size = self.one_of(len(text), len(text), len(text), 2**63, len(text) + 8)
        return struct.pack("<Q", size) + text + struct.pack(f"<{count}q", *slots) + data

    def altered(self, data: bytes) -> bytes:
        data = bytearray(data)
        for _ in range(self.random.choice([1, 1, 2, 5, 20])):
            if not data:
                break
            at = self.random.randrange(len(data))
            how = self.random.randrange(6)
            if how == 0:
                data[at] = self.random.randrange(256)
            elif how == 1:
                del data[at : at + self.random.choice([1, 4, 100])]
            elif how == 2:
                data[at:at] = bytes(self.random.randrange(256) for _ in range(self.random.choice([1, 3])))
            elif how == 3:
                piece = data[at : at + self.random.choice([1, 8, 200])]
                data[at:at] = piece * self.random.choice([1, 2, 50])
            elif how == 4:
                data[at:at] = self.one_of(b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b": ", b'"', b"}")
            else:
                data[at] ^= 1 << self.random.randrange(8)
        return bytes(data)

    def body_bytes(self, path: str, operation: dict) -> bytes:
        content = operation.get("requestBody", {}).get("content", {})
        if "application/octet-stream" in content:
            return self.patch_file()
        schema = content.get("application/json", {}).get("schema")
        chance = self.random.random()
        if schema is None:
            return b"" if chance < 0.9 else json.dumps(self.anything()).encode()
        if chance < 0.02:
            depth = self.one_of(63, 64, 65, 1000, 100_000)
            return self.one_of(b"[", b'{"a":') * depth + self.one_of(b"", b"1" + b"]" * depth)
        if chance < 0.04:
            return b'{"prompt":"' + b"a" * self.one_of(1000, 70_000, 4 << 20, (4 << 20) + 1) + b'"}'
        made = self.body(path, schema)
        text = json.dumps(made, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")
        if chance < 0.15:
            text = self.altered(text)
        return text

    # --- Requests --------------------------------------------------------------------------------------------------------

    def path_of(self, path: str) -> str:
        return path.replace(
            "{id}", self.one_of("tiny", "nothing", "fuzz-1", "fuzz-2", "%2e%2e", "a/b", "%00", "x" * 3000, "\u00e4", "c1")
        )

    def request(self, is_last: bool = True) -> bytes:
        """Sets is_whole to False where its end is not what the server takes for it."""
        path = self.random.choice(sorted(self.document["paths"]))
        methods = self.document["paths"][path]
        method = self.random.choice(sorted(methods))
        body = self.body_bytes(path, methods[method])
        method = method.upper()
        if self.random.random() < 0.03:
            method = self.one_of("PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PATCH", "X" * 100)
        target = self.path_of(path)
        if self.random.random() < 0.1:
            target += self.one_of("?", "?a=b", "/", "//", "/%zz", "#x", "/.." * 50, "?" + "q" * 9000)
        fields = [("host", self.host)]
        if self.key is not None and self.random.random() < 0.97:
            fields.append(("authorization", f"Bearer {self.key}"))
        if is_last:
            fields.append(("connection", "close"))
        if self.random.random() < 0.1:
            fields.append(
                self.one_of(
                    ("if-match", self.one_of('"1"', "*", "x", '"99999999999999999999"')),
                    ("content-encoding", "gzip"),
                    ("expect", self.one_of("100-continue", "x")),
                    ("accept", "text/event-stream"),
                    ("x-request-id", self.one_of("a", "b" * 300, "\u00e4")),
                    ("x-" + "h" * self.one_of(10, 33_000), "v"),
                    ("connection", "upgrade"),
                    ("origin", "https://evil.example"),
                    ("transfer-encoding", self.one_of("gzip", "chunked, chunked", "x")),
                )
            )
            self.is_whole = fields[-1][0] not in ("transfer-encoding", "expect") and self.is_whole
        if self.random.random() < 0.01:
            fields += [("a", "b")] * self.one_of(97, 101, 1000)
        if body or method == "POST":
            how = self.random.random()
            if how < 0.8:
                fields.append(("content-length", str(len(body))))
            elif how < 0.93:
                fields.append(("transfer-encoding", "chunked"))
                pieces, at = [], 0
                while at < len(body):
                    size = self.random.choice([1, 7, 100, 5000])
                    piece = body[at : at + size]
                    pieces.append(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    at += size
                body = b"".join(pieces) + b"0\r\n\r\n"
            else:
                self.is_whole = False
                fields.append(("content-length", self.one_of("-1", "5x", str(len(body) + 1), str(2**64), "4194305", "0")))
        version = "1.1" if self.random.random() < 0.97 else self.one_of("1.0", "2.0", "1.2", "9")
        head = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        return head.encode("utf-8", "surrogatepass") + b"\r\n" + body

    def bytes(self) -> tuple[bytes, bool]:
        """What is sent, and whether it is whole, so that an answer is to come."""
        self.is_whole = True
        sent = self.request()
        chance = self.random.random()
        if chance < 0.15:
            sent = self.altered(sent[:4096]) + sent[4096:]
        elif chance < 0.2:
            sent = sent[: self.random.randrange(len(sent) + 1)]
        elif chance < 0.27:
            sent = b"".join(self.request(is_last=False) for _ in range(self.random.choice([1, 2, 5]))) + sent
        elif chance < 0.28:
            sent = self.random.randbytes(self.random.choice([1, 100, 10_000]))
        return sent, self.is_whole and chance >= 0.2 and not 0.27 <= chance < 0.28


def statuses(answer: bytes) -> list[int]:
    """Of the answers in these bytes, as far as they can be told from what they contain."""
    found = []
    for part in answer.split(b"HTTP/1.1 ")[1:]:
        if part[:3].isdigit() and part[3:4] == b" ":
            found.append(int(part[:3]))
    return found


class Fuzz:
    def __init__(self, host: str, port: int, key: str | None = None) -> None:
        self.host, self.port, self.key = host, port, key
        self.name = f"{host}:{port}"
        self.seen: Counter[int | str] = Counter()
        self.failed: list[str] = []
        self.lock = threading.Lock()
        self.document = json.loads(self.good("/openapi.json"))
        pool = json.loads(self.good("/v1/memory"))
        self.pool = None if "error" in pool else pool

    def good(self, path: str) -> bytes:
        """The body of an answer that must come."""
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            key = "" if self.key is None else f"authorization: Bearer {self.key}\r\n"
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {self.name}\r\nconnection: close\r\n{key}\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 ")):
            raise OSError(f"GET {path}: {answer[:300]!r}")
        return answer.split(b"\r\n\r\n", 1)[1]

    def send(self, seed: int) -> None:
        sent, is_whole = Maker(seed, self.document, self.name, self.key, self.pool).bytes()
        answer = bytearray()
        try:
            with socket.create_connection((self.host, self.port), timeout=30) as connection:
                try:
                    connection.sendall(sent)
                    if not is_whole:
                        connection.settimeout(0.1)
                    while True:
                        try:
                            piece = connection.recv(1 << 16)
                        except TimeoutError:
                            if connection.gettimeout() > 1:
                                raise
                            connection.settimeout(30)  # it waits for the rest, and is told that there is none
                            connection.shutdown(socket.SHUT_WR)
                            continue
                        if not piece:
                            break
                        answer += piece
                except (ConnectionResetError, BrokenPipeError):
                    self.seen["reset"] += 1
        except TimeoutError:
            if answer or b'"min_' not in sent:  # which waits for an edit that does not come
                self.fail(seed, sent, f"no end within 30 s, but {bytes(answer[:300])!r}")
        except OSError as error:
            self.fail(seed, sent, f"no connection: {error}")
        got = statuses(bytes(answer))
        for status in got or ["nothing"]:
            self.seen[status] += 1
        if any(status >= 500 and status not in FINE for status in got):
            self.fail(seed, sent, bytes(answer[:500]).decode("utf-8", "replace"))
        try:
            self.good("/health")
        except OSError as error:
            self.fail(seed, sent, f"a good request behind it: {error}")

    def fail(self, seed: int, sent: bytes, why: str) -> None:
        with self.lock:
            self.failed.append(f"seed {seed}: {why}\n  {sent[:2000]!r}")

    def run(self, first: int, count: int, threads: int, each=None) -> None:
        """`each(number of those that were sent)` is called now and then."""
        seeds = iter(range(first, first + count))
        done = [0]

        def work() -> None:
            while not self.failed:
                with self.lock:
                    seed = next(seeds, None)
                if seed is None:
                    return
                self.send(seed)
                with self.lock:
                    done[0] += 1
                    if each is not None and done[0] % 100 == 0:
                        each(done[0])

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def main() -> int:
    from served import ADMIN, Served

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--command", type=Path, help="the command; absent: that of MEMLAYERS_LIBRARY")
    parser.add_argument("--keys", type=Path, help="a folder for keys; absent: without")
    a = parser.parse_args()
    more = {} if a.command is None else {"command": a.command}
    server = Served(a.model, "--cache-bytes", "16MB", "--queue", "1000", keys=a.keys, **more)
    fuzz = Fuzz(server.host, server.port, ADMIN if a.keys else None)
    began, memory = time.monotonic(), []

    def each(done: int) -> None:
        memory.append(server.memory())
        if done % 20_000 == 0:
            rate = done / (time.monotonic() - began)
            print(f"{done} requests, {rate:.0f}/s, {memory[-1] >> 20} MiB", file=sys.stderr, flush=True)

    fuzz.run(a.first, a.requests, a.threads, each)
    if server.process.poll() is not None:
        fuzz.failed.append(f"the server ended with {server.process.returncode}: {''.join(server.log)[-3000:]}")
    elif (code := server.stop()) != 0:
        fuzz.failed.append(f"the server ended with {code}: {''.join(server.log)[-3000:]}")
    for failure in fuzz.failed:
        print(failure)
    third = memory[len(memory) // 3] >> 20 if memory else 0
    last = max(memory[-max(1, len(memory) // 10) :], default=0) >> 20
    print(json.dumps({
        "requests": a.requests, "failed": len(fuzz.failed), "seconds": round(time.monotonic() - began, 1),
        "mib_after_a_third": third, "mib_at_the_end": last,
        "answers": {str(status): count for status, count in sorted(fuzz.seen.items(), key=str)},
    }))  # fmt: skip
    return 1 if fuzz.failed else 0


if __name__ == "__main__":
    sys.exit(main())

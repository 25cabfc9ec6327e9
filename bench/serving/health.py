#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long /health takes under 500 open streams, and beside 2,000 slow clients: of the header, of the body, of reading.
Beside slow clients also the p99 gap between tokens of 4 others, the server's memory and its number of threads. Who asks
for /health, the streams and the slow clients are processes of their own.

  bench/serving/health.py MODEL --out bench/results/serving/NAME.jsonl
"""

import asyncio
import contextlib
import http.client
import multiprocessing
import random
import socket
import time

from harness import (
    Crowd,
    Server,
    allow_files,
    body_of,
    ours,
    parser,
    quantile,
    random_prompt,
    report,
    request_bytes,
    table,
)

MOST = 4096  # connections of one address


class Remote:
    """What a process of its own needs to know of the server."""

    def __init__(self, server: Server) -> None:
        self.port, self.vocab, self.context = server.port, server.vocab, server.context

    def is_ours(self) -> bool:
        return True


def ask_health(port: int, seconds: float, result) -> None:
    """A connection for each, as a load balancer asks."""
    taken, failed, until = [], 0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/health")
            if connection.getresponse().status != 200:
                failed += 1
            connection.close()
        except OSError:
            failed += 1
        taken.append(time.monotonic() - began)
        time.sleep(0.01)
    result.put((taken, failed))


def health_of(server: Server, seconds: float) -> tuple[list[float], int]:
    result = multiprocessing.Queue()
    process = multiprocessing.Process(target=ask_health, args=(server.port, seconds, result))
    process.start()
    got = result.get()
    process.join()
    return got


def many_streams(server: Remote, count: int, ready) -> None:
    allow_files()

    async def one(chance: random.Random) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                body = body_of(server, random_prompt(server, 8, chance), server.context - 16)
                writer.write(request_bytes("/v1/completions", {**body, "stream": True}))
                while await reader.read(65536):
                    pass
                writer.close()
            await asyncio.sleep(0.1)

    async def all_of() -> None:
        tasks = [asyncio.create_task(one(random.Random(i))) for i in range(count)]
        await asyncio.sleep(3)
        ready.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_of())


def slow_clients(port: int, count: int, kind: str, ready) -> None:
    """Each begins anew where the server ends it."""
    allow_files()

    async def one(number: int) -> None:
        await asyncio.sleep(number / count * 2)
        while True:
            writer = None
            with contextlib.suppress(OSError):
                connection = socket.socket()
                connection.setblocking(False)
                if kind == "read":  # little room for what it is sent
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
                _, writer = await asyncio.open_connection(sock=connection, limit=1024)
                if kind == "header":
                    for byte in b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x: y\r\n" * 1000:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(1)
                elif kind == "body":
                    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n")
                    for _ in range(100_000):
                        writer.write(b"a")
                        await writer.drain()
                        await asyncio.sleep(1)
                else:
                    writer.transport.pause_reading()
                    writer.write(b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 100)
                    await asyncio.sleep(20)
            if writer is not None:
                writer.close()
            await asyncio.sleep(0.5)

    async def all_of() -> None:
        tasks = [asyncio.create_task(one(i)) for i in range(count)]
        await asyncio.sleep(4)
        ready.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_of())


@contextlib.contextmanager
def beside(target, *arguments):
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=target, args=(*arguments, ready), daemon=True)
    process.start()
    ready.wait(60)
    yield
    process.terminate()
    process.join()


async def others(server: Server, seconds: float) -> list[float]:
    crowd = Crowd(server, 4, 16, min(400, server.context - 20))
    await crowd.all_run()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    gaps = crowd.gaps(began, time.monotonic())
    await crowd.stop()
    return gaps


def both(server: Server, seconds: float) -> tuple[list[float], list[float], int]:
    """Seconds of /health, one after the other with the gaps of others; how many of /health failed."""
    gaps = asyncio.run(others(server, seconds))
    taken, failed = health_of(server, seconds)
    return taken, gaps, failed


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--streams", type=int, default=500)
    p.add_argument("--clients", type=int, default=2000)
    p.add_argument("--seconds", type=float, default=15, help="of each measurement")
    a = p.parse_args()
    allow_files()
    options = ["--connections", MOST, "--connections-per-address", MOST, "--queue", a.streams, "--slots", 16]
    figures: dict = {"streams": a.streams, "clients": a.clients}
    rows = [("figure", "measured", "wanted")]

    server = ours(a, *options)
    taken, _ = health_of(server, a.seconds / 3)
    figures["health_idle_p99_s"] = quantile(taken, 0.99)
    with beside(many_streams, Remote(server), a.streams):
        counters = server.get("/health")
        taken, failed = health_of(server, a.seconds)
    p99 = quantile(taken, 0.99)
    figures |= {"health_streams_p99_s": p99, "health_streams_max_s": max(taken), "health_streams_failed": failed}
    open_streams = counters["running"] + counters["waiting"]
    rows.append(
        (
            f"/health under {open_streams} open streams, p99",
            f"{p99 * 1e3:.1f} ms, at most {max(taken) * 1e3:.1f} ms, idle {figures['health_idle_p99_s'] * 1e3:.1f} ms"
            + (f", {failed} FAILED" if failed else ""),
            "50 ms",
        )
    )
    server.stop()

    server = ours(a, *options)
    both(server, 2)  # what is made with the first requests
    quiet_health, quiet_gaps, _ = both(server, a.seconds)
    quiet, memory, threads = quantile(quiet_gaps, 0.99), server.mib(), server.num_threads()
    for kind in ("header", "body", "read"):
        with beside(slow_clients, server.port, a.clients, kind):
            taken, gaps, failed = both(server, a.seconds)
            now, now_threads = server.mib(), server.num_threads()
        slow, health = quantile(gaps, 0.99), quantile(taken, 0.99)
        figures |= {
            f"slow_{kind}_gap_p99_s": slow,
            f"slow_{kind}_gap_ratio": slow / quiet,
            f"slow_{kind}_health_p99_s": health,
            f"slow_{kind}_health_failed": failed,
            f"slow_{kind}_more_mib": now - memory,
            f"slow_{kind}_more_threads": now_threads - threads,
        }
        rows.append(
            (
                f"{a.clients} slow clients, {kind}",
                f"p99 gap of others {slow * 1e3:.1f} ms, without {quiet * 1e3:.1f}: {slow / quiet:.2f} times; /health "
                f"p99 {health * 1e3:.1f} ms; {now - memory:+.0f} MB; {now_threads - threads:+d} threads"
                + (f"; {failed} FAILED" if failed else ""),
                "at most 2 times, +200 MB, no threads",
            )
        )
        time.sleep(2)
    figures |= {"quiet_gap_p99_s": quiet, "quiet_health_p99_s": quantile(quiet_health, 0.99), "quiet_mib": memory}
    server.stop()
    table(rows)
    report(a, figures)


if __name__ == "__main__":
    main()

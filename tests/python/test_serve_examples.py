# SPDX-License-Identifier: Apache-2.0
"""What examples/serve says to systemd, nginx and container builders is what they take."""

import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "serve"


def test_systemd_takes_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    command = tmp_path / "memlayers"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = tmp_path / "memlayers.service"
    unit.write_text((FOLDER / "memlayers.service").read_text().replace("/usr/local/bin/memlayers", str(command)))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    if "Failed to" in result.stderr and "memlayers.service" not in result.stderr:
        pytest.skip(f"systemd-analyze does not run here: {result.stderr.strip()}")
    about_us = [line for line in result.stderr.splitlines() if "memlayers.service" in line]
    assert (about_us, result.returncode) == ([], 0), result.stderr


def test_the_unit_is_safe_by_systemd_s_own_measure():
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", FOLDER / "memlayers.service"], capture_output=True, text=True
    )
    found = re.search(r"Overall exposure level for memlayers.service: ([\d.]+)", result.stdout)
    if not found:
        pytest.skip(f"systemd-analyze security does not run here: {result.stderr.strip()}")
    assert float(found[1]) < 2.5  # "OK" begins at 2.5 of 10


@pytest.fixture
def backend():
    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.write(b"data: 1\n\n")
            self.wfile.flush()
            go_on.wait(20)
            self.wfile.write(b"data: [DONE]\n\n")

    go_on = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, go_on
    go_on.set()
    server.shutdown()
    server.server_close()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def proxy(tmp_path, backend):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not nginx:
        pytest.skip("no nginx")
    port = free_port()
    text = (FOLDER / "nginx.conf").read_text()
    for old, new in [
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{backend[0]};"),
        ("listen 8443;", f"listen 127.0.0.1:{port};"),
        ("events {", f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; daemon off; events {{"),
        ("http {", "http { access_log off;"
         + "".join(f" {name}_temp_path {tmp_path}/{name};" for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])),
    ]:  # fmt: skip
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    start = [nginx, "-p", tmp_path, "-c", path, "-e", tmp_path / "error.log"]
    checked = subprocess.run([*start, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    running = subprocess.Popen(start)
    for _ in range(200):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    running.terminate()
    running.wait(10)


def test_nginx_passes_a_stream_on_as_it_comes(proxy, backend):
    connection = http.client.HTTPConnection("127.0.0.1", proxy, timeout=10)
    connection.request("GET", "/v1/models")
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline() == b"data: 1\n"  # while the backend waits for us
    backend[1].set()
    assert b"data: [DONE]" in response.read()


def test_the_container_s_files_are_here():
    root = FOLDER.parents[1]
    text = (FOLDER / "Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (root / name).exists(), name
    assert re.search(r"^USER memlayers$", text, re.MULTILINE)

import hashlib
import http.server
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "download.py"
CONTENT = b"sessionId;userId;itemId;timeframe;eventdate\n1;NA;2;3;2016-05-09\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.paths.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:20])
        if self.path == "/stalls":
            self.wfile.flush()
            self.server.released.wait(60)
        self.wfile.write(CONTENT[20:])


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.released, server.paths = True, threading.Event(), []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def download(run_command):
    return lambda *arguments: run_command("download", *arguments, no_proxy="*")


def test_it_fetches_the_file_and_says_how_to_go_on(server, download, tmp_path):
    out = tmp_path / "raw data"
    arguments = ["diginetica", "--out", out, "--url", f"{server.url}/x", "--sha256", DIGEST.upper()]
    process = download(*arguments)
    assert (process.returncode, process.stderr) == (0, "")
    path = out / "train-item-views.csv"
    assert path.read_bytes() == CONTENT and len(list(out.iterdir())) == 1
    assert process.stdout == (
        f"{path}: {len(CONTENT)} bytes, downloaded, SHA-256 matches; "
        f"next: srgnn preprocess diginetica --raw '{path}' --out data/diginetica\n"
    )
    process = download(*arguments)
    assert process.returncode == 0 and "exists already, SHA-256 matches" in process.stdout
    assert server.paths == ["/x"]


def test_the_other_dataset(server, download, tmp_path):
    for url, name in (("/gnn%2Fclicks.dat", "yoochoose-clicks.dat"), ("/c.dat.gz?x=1", "yoochoose-clicks.dat.gz")):
        process = download("yoochoose", "--out", tmp_path, "--url", server.url + url)
        assert process.returncode == 0 and (tmp_path / name).read_bytes() == CONTENT
        assert f"yoochoose --raw {tmp_path / name} --fraction 1/64" in process.stdout


def test_what_to_do_by_hand_if_the_host_has_no_such_file(server, download, tmp_path):
    process = download("yoochoose", "--out", tmp_path, "--url", f"{server.url}/missing")
    assert process.returncode == 1 and process.stdout == ""
    url, path = f"{server.url}/missing", tmp_path / "yoochoose-clicks.dat"
    assert process.stderr.startswith(f"download: {url}: the server answered 404 Not Found. Or download {url} ")
    assert f"put it at {path}, then: srgnn preprocess yoochoose --raw {path} " in process.stderr
    assert process.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_wrong_hash(server, download, refused, tmp_path):
    """What was fetched is failed work and removed; what was there is the user's, and bad input."""
    process = download("diginetica", "--out", tmp_path, "--url", server.url, "--sha256", "0" * 64)
    assert process.returncode == 1 and DIGEST in process.stderr and not list(tmp_path.iterdir())
    (tmp_path / "train-item-views.csv").write_bytes(CONTENT)
    assert DIGEST in refused("download", "diginetica", "--out", tmp_path, "--url", server.url, "--sha256", "0" * 64)
    assert (tmp_path / "train-item-views.csv").read_bytes() == CONTENT


def test_ctrl_c_keeps_what_there_is(server, tmp_path):
    command = [sys.executable, TOOL, "diginetica", "--out", tmp_path, "--url", f"{server.url}/stalls"]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **heeds)
    part = tmp_path / "train-item-views.csv.part"
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "download: interrupted; run the same command again to resume\n"
    assert CONTENT.startswith(part.read_bytes()) and not (tmp_path / "train-item-views.csv").exists()


BAD_URLS = {
    "http://[abc": "not a valid URL (Invalid IPv6 URL)",
    "http://127.0.0.1/é.csv": r"'\xe9' in a URL; write it percent-encoded",
    "http://é.org/log.csv": r"'\xe9' in a URL; write it percent-encoded, a host as xn--",
    "http://127.0.0.1/a b.csv": "' ' in a URL",
    "http://127.0.0.1/\r\nHost: x": r"'\r' in a URL",
    f"http://{'a' * 70}.org/log.csv": "not a valid URL (",
    "http://a..org/log.csv": "not a valid URL (",
    "http://127.0.0.1:abc/log.csv": "not a valid URL (Port could not be cast",
    f"http://127.0.0.1:{'a' * 5_000}/log.csv": "not a valid URL (Port could not be cast",
    "http://127.0.0.1:99999/log.csv": "not a valid URL (Port out of range",
    "http://127.0.0.1: 80/log.csv": "' ' in a URL",
    "http://me:secret@127.0.0.1/log.csv": "not an http or https URL of a host and a path",
}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["movielens", "--out", "raw"], "invalid choice"),
        (["diginetica"], "--out"),
        (["diginetica", "--out", "raw", "--sha256", "abc"], "64 hexadecimal digits"),
        (["diginetica", "--out", "raw", "--url", "file:///etc/passwd"], "not an http or https URL"),
        (["diginetica", "--out", "file"], "is a file"),
        *((["diginetica", "--out", "raw", "--url", url], message) for url, message in BAD_URLS.items()),
    ],
)
def test_bad_usage(refused, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    line = refused("download", *arguments, cwd=tmp_path)
    assert message in line and len(line) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""Against a server on the loopback address that misbehaves as told."""

import errno
import hashlib
import http.server
import json
import random
import re
import threading

import pytest

from paddle_srgnn.datasets import download as module
from paddle_srgnn.datasets.download import SOURCES, Patience, download
from paddle_srgnn.errors import InputError, WorkFailed

CONTENT = random.Random(0).randbytes(256_000)
OTHER = b"other" * 40_000
HALF = len(CONTENT) // 2


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; `faults` are taken one by one, one for each request, and None is a good answer.

    A fault is a function that gets the handler, the status and the body, and answers in its own way.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.validators, self.headers = CONTENT, True, True, {}
        self.faults, self.requests, self.released = [], [], threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/log.csv"

    def handle_error(self, request, client_address):
        """A client that leaves is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append({name: self.headers[name] for name in ("Range", "If-Range") if self.headers[name]})
        start, etag = 0, f'"{hashlib.md5(server.content).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if server.ranges and wanted and self.headers["If-Range"] in (None, etag):
            start = int(wanted[1])
        self.extra = dict(server.headers)
        if server.validators:
            self.extra["ETag"] = etag
        status, body = (206 if start else 200), server.content[start:]
        if start:
            self.extra["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        if start and not body:
            status = 416
        fault = server.faults.pop(0) if server.faults else None
        (fault or good)(self, status, body)

    def start(self, status: int, length: int | None):
        self.send_response(status)
        for name, value in self.extra.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def good(handler, status, body):
    handler.start(status, len(body))
    handler.wfile.write(body)


def breaks_off(handler, status, body):
    handler.start(status, len(body))
    handler.wfile.write(body[: len(body) // 2])


def stalls(handler, status, body):
    breaks_off(handler, status, body)
    handler.wfile.flush()
    handler.server.released.wait(30)


def answers(code: int):
    return lambda handler, status, body: handler.start(code, 0)


def hangs_up(handler, status, body):
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "log.csv"


QUICK = Patience(timeout=0.5, attempts=3, pause=0)


def files(path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_a_whole_file(server, path):
    seen = []
    assert download(server.url, path, hashlib.sha256(CONTENT).hexdigest().upper(), QUICK, lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT and files(path) == ["log.csv"]
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


@pytest.mark.parametrize("fault", [breaks_off, stalls])
def test_what_breaks_off_goes_on_where_it_stopped(server, path, fault):
    server.faults = [fault, fault]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT and files(path) == ["log.csv"]
    etag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    starts = [HALF, HALF + HALF // 2]
    assert server.requests == [{}, *({"Range": f"bytes={start}-", "If-Range": etag} for start in starts)]


def test_a_later_command_goes_on_too(server, path):
    server.faults = [breaks_off, hangs_up, hangs_up, hangs_up]
    with pytest.raises(WorkFailed, match=rf"keeps {HALF:,} bytes"):
        download(server.url, path, patience=QUICK)
    assert not path.exists() and path.with_name("log.csv.part").read_bytes() == CONTENT[:HALF]
    seen = []
    assert download(server.url, path, patience=QUICK, progress=lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT and files(path) == ["log.csv"]
    assert seen[0] == (HALF, len(CONTENT)) and server.requests[-1]["Range"] == f"bytes={HALF}-"


def test_attempts_that_bring_something_do_not_count(server, path):
    server.faults = [breaks_off] * 8  # more than the 3 in a row that may bring nothing
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT and len(server.requests) == 9


def test_a_server_without_ranges_starts_again(server, path):
    server.ranges = False
    server.faults = [breaks_off, breaks_off]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT


def changes(handler, status, body):
    """Breaks off, and has another file from then on."""
    handler.server.content = OTHER
    breaks_off(handler, status, body)


@pytest.mark.parametrize("validators", [True, False])
def test_a_file_that_changes_in_between_is_not_mixed(server, path, validators):
    """Known by the ETag, and without one by the length."""
    server.validators = validators
    server.faults = [changes]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == OTHER and files(path) == ["log.csv"]


def test_a_file_that_has_become_shorter(server, path):
    """There is nothing left where the .part ends: the server answers 416."""

    def shrinks(handler, status, body):
        server.content = OTHER[:1000]
        breaks_off(handler, status, body)

    server.validators = False
    server.faults = [shrinks]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == OTHER[:1000] and len(server.requests) == 3


def test_a_server_that_ignores_if_range_does_not_mix_them_either(server, path):
    def other_file(handler, status, body):
        server.content = OTHER
        handler.extra |= {"ETag": '"other"', "Content-Range": f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        handler.start(206, HALF)
        handler.wfile.write(OTHER[:HALF])

    server.faults = [breaks_off, other_file]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == OTHER


def test_a_range_from_elsewhere_is_not_taken(server, path):
    def shifted(handler, status, body):
        handler.extra["Content-Range"] = f"bytes 0-{HALF - 1}/{len(CONTENT)}"
        handler.start(206, HALF)
        handler.wfile.write(CONTENT[:HALF])

    server.faults = [breaks_off, shifted]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT


def test_a_part_of_another_url_or_without_a_record_is_not_gone_on_with(server, path):
    server.faults = [breaks_off, hangs_up, hangs_up, hangs_up]
    with pytest.raises(WorkFailed):
        download(server.url, path, patience=QUICK)
    server.content = OTHER
    assert download(server.url + "?other", path, patience=QUICK)
    assert path.read_bytes() == OTHER and "Range" not in server.requests[-1]
    path.unlink()
    path.with_name("log.csv.part").write_bytes(b"anything")
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == OTHER


def test_stopped_between_the_last_byte_and_the_name(server, path):
    part = path.with_name("log.csv.part")
    path.parent.mkdir()
    part.write_bytes(CONTENT)
    record = {"url": server.url, "length": len(CONTENT), "etag": None, "modified": None}
    part.with_name("log.csv.part.json").write_text(json.dumps(record))
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT and files(path) == ["log.csv"] and not server.requests


def test_a_part_that_is_too_long_is_thrown_away(server, path):
    part = path.with_name("log.csv.part")
    path.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    record = {"url": server.url, "length": len(CONTENT), "etag": None, "modified": None}
    part.with_name("log.csv.part.json").write_text(json.dumps(record))
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT


def test_a_wrong_length_is_never_a_file(server, path):
    def promises_more(handler, status, body):
        handler.start(status, len(body) + 7)
        handler.wfile.write(body)

    server.ranges = False
    server.faults = [promises_more] * 9
    with pytest.raises(WorkFailed, match=f"{len(CONTENT):,} of {len(CONTENT) + 7:,} bytes, 3 times"):
        download(server.url, path, patience=QUICK)
    assert not path.exists() and len(server.requests) == 4  # the first brought something


def test_a_stall_ends(server, path):
    def silent(handler, status, body):
        server.released.wait(30)

    server.faults = [silent] * 3
    with pytest.raises(WorkFailed, match=r"no answer \(timed out\), 3 times"):
        download(server.url, path, patience=QUICK)
    assert files(path) == []


@pytest.mark.parametrize("code, requests", [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_a_refusal(server, path, code, requests):
    server.faults = [answers(code)] * 9
    with pytest.raises(WorkFailed, match=f"answered {code}"):
        download(server.url, path, patience=QUICK)
    assert files(path) == [] and len(server.requests) == requests


def test_a_server_that_comes_round(server, path):
    server.faults = [answers(503), hangs_up]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT


def test_nobody_there(server, path):
    server.server_close()
    with pytest.raises(WorkFailed, match=r"refused\), 3 times"):
        download(server.url, path, patience=QUICK)
    assert files(path) == []


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda handler, status, body: handler.start(200, None), "does not give the file's length"),
        (lambda handler, status, body: handler.start(200, 0), "without a file"),
        (lambda handler, status, body: handler.start(204, None), "without a file"),
    ],
)
def test_an_answer_that_is_no_file(server, path, answer, message):
    server.faults = [answer]
    with pytest.raises(WorkFailed, match=message):
        download(server.url, path, patience=QUICK)
    assert files(path) == []


def test_a_login_page_is_no_file(server, path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(WorkFailed, match="web page"):
        download(server.url, path, patience=QUICK)
    assert files(path) == []


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n"):
    def answer(handler, status, body):
        handler.protocol_version = "HTTP/1.1"
        handler.extra |= {"Transfer-Encoding": "chunked", "Connection": "close"}
        handler.start(200, None)
        for piece in pieces:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(end)

    return answer


def test_a_file_in_chunks_is_whole_or_absent(server, path):
    server.faults = [chunked(CONTENT[:1000], end=b""), chunked(CONTENT[:1000], CONTENT[1000:])]
    assert download(server.url, path, patience=QUICK)
    assert path.read_bytes() == CONTENT and files(path) == ["log.csv"]
    assert "Range" not in server.requests[1]


def test_a_wrong_hash_removes_what_came(server, path):
    with pytest.raises(WorkFailed, match=hashlib.sha256(CONTENT).hexdigest()):
        download(server.url, path, "0" * 64, QUICK)
    assert files(path) == []


def test_what_is_there_is_not_fetched_again(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    assert not download(server.url, path, patience=QUICK)
    assert not download(server.url, path, digest, QUICK)
    with pytest.raises(InputError, match=digest):
        download(server.url, path, "0" * 64, QUICK)
    assert path.read_bytes() == b"mine" and not server.requests


def test_a_full_disk_is_not_taken_for_the_network(server, path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError) as raised:
        download(server.url, path, patience=QUICK)
    assert raised.value.errno == errno.ENOSPC and len(server.requests) == 1 and not path.exists()


@pytest.mark.parametrize("target", ["http://[abc", "http://127.0.0.1:abc/x", f"http://{'a' * 70}.org/"])
def test_a_redirect_to_no_url_is_not_tried_again(server, path, target):
    server.faults, server.headers = [answers(302)] * 9, {"Location": target}
    with pytest.raises(WorkFailed, match="redirects to a URL that is not valid"):
        download(server.url, path, patience=QUICK)
    assert len(server.requests) == 1


NOT_HTTP = ["file:///etc/passwd", "ftp://127.0.0.1/x", "log.csv", "http:///x", "http://:80/x", "http://h:0/x"]


@pytest.mark.parametrize("url", NOT_HTTP)
def test_only_http(url, path):
    with pytest.raises(InputError, match="http"):
        download(url, path)
    assert not path.parent.exists()


def test_the_names_are_those_that_preprocessing_looks_for():
    assert {name: source.file for name, source in SOURCES.items()} == {
        "diginetica": "train-item-views.csv",
        "yoochoose": "yoochoose-clicks.dat",
    }
    assert all(source.url.startswith("https://") for source in SOURCES.values())

"""The raw logs of the two benchmarks, fetched by HTTP: whole under the file's name, or in part under NAME.part.

Beside NAME.part lies NAME.part.json with what the server said about the file, so that a later attempt, in this process
or another, goes on only with the same file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError, WorkFailed
from ..files import atomic_file, sha256, write_json

logger = logging.getLogger(__name__)

BLOCK = 1 << 16  # bytes read at a time
TRANSIENT = (408, 429, 500, 502, 503, 504)  # answers of a server that may think better of it


class Source(NamedTuple):
    """Where a raw log is found, and the name tools/preprocess.py looks for."""

    url: str
    file: str


SOURCES = {
    "diginetica": Source("https://sr-gnn.bj.bcebos.com/train-item-views.csv", "train-item-views.csv"),
    "yoochoose": Source("https://paddlerec.bj.bcebos.com/gnn%2Fyoochoose-clicks.dat", "yoochoose-clicks.dat"),
}


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to bear with a server, times in seconds."""

    timeout: float = 30.0  # without a byte
    attempts: int = 5  # in a row that bring nothing new
    pause: float = 0.5  # before an attempt, doubled for each in a row that brought nothing new


@dataclasses.dataclass(frozen=True)
class _Remote:
    """What is known about the file that a .part is the beginning of."""

    url: str
    length: int | None = None  # bytes
    etag: str | None = None
    modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What If-Range may hold: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Broken(Exception):
    """An attempt failed in a way that the next may not."""


def download(
    url: str,
    path: str | os.PathLike,
    sha256_hex: str | None = None,
    patience: Patience = Patience(),
    progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> bool:
    """Fetch a file; what a broken attempt has fetched is kept in PATH.part, and the next one goes on from there.

    Args:
        url: http or https.
        path: the file's place; its folder is made.
        sha256_hex: the SHA-256 it must have.
        progress: called with the bytes there are and, where the server says so, the bytes in all.

    Returns:
        whether anything was fetched: False if the file is there already.

    Raises:
        InputError: not such a URL, or the file is there with another SHA-256.
        WorkFailed: the server gives no such file, does not answer, breaks off again and again, or what it gives has
            another SHA-256, and is then removed.
    """
    path = Path(path)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise InputError(f"{url}: not an http or https URL")
    if path.exists():
        if sha256_hex and sha256(path) != sha256_hex.lower():
            raise InputError(
                f"{path} is there already, but its SHA-256 is {sha256(path)}, not {sha256_hex}; move it away to go on"
            )
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _fetch_all(url, part, patience, progress)
    if sha256_hex and (found := sha256(part)) != sha256_hex.lower():
        _discard(part)
        raise WorkFailed(f"{url}: what came has the SHA-256 {found}, not {sha256_hex}; it was removed")
    with atomic_file(path) as temporary:
        os.replace(part, temporary)
    _discard(part)
    return True


def _fetch_all(url: str, part: Path, patience: Patience, progress: Callable) -> None:
    """Bring `part` to the file's whole length, in as many attempts as it takes."""
    furthest, fruitless = _size(part), 0
    while True:
        try:
            return _attempt(url, part, patience.timeout, progress)
        except _Broken as broken:
            fruitless = 0 if _size(part) > furthest else fruitless + 1
            furthest = max(furthest, _size(part))
            if fruitless >= patience.attempts:
                kept = f"; {part} keeps {_size(part):,} bytes, and the same command goes on" if _size(part) else ""
                raise WorkFailed(f"{url}: {broken}, {fruitless} times{kept}") from None
            logger.warning("%s; trying again", broken)
            time.sleep(patience.pause * 2**fruitless)


def _attempt(url: str, part: Path, timeout: float, progress: Callable) -> None:
    """One request for what is missing. Returns once `part` is whole, raises _Broken if it is not."""
    known = _recorded(part, url)
    have = _size(part) if known and _size(part) <= known.length else 0
    if known and have == known.length:  # stopped between the last byte and the file's name
        return
    headers = {"User-Agent": "paddle-srgnn", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known.validator} if known.validator else {})
    with _answer(urllib.request.Request(url, headers=headers), timeout, part) as response:
        remote = _described(response, url)
        if response.status == 206 and not _continues(response, remote, known, have):
            _discard(part)
            raise _Broken("the file has changed since the last attempt")
        if response.status != 206:  # the whole file: the first time, or it has changed, or the server knows no ranges
            have = 0
            _discard(part)
            write_json(_record(part), dataclasses.asdict(remote))
        progress(have, remote.length)
        with open(part, "ab") as file:
            while block := _read(response):
                file.write(block)
                have += len(block)
                progress(have, remote.length)
            file.flush()
            os.fsync(file.fileno())
        if remote.length is not None and (have := _size(part)) != remote.length:
            raise _Broken(f"the server broke off after {have:,} of {remote.length:,} bytes")


@contextlib.contextmanager
def _answer(request: urllib.request.Request, timeout: float, part: Path):
    """The response to a request, with a file in it."""
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing from there on: the .part is not of this file
            _discard(part)
        if error.code == 416 or error.code in TRANSIENT:
            raise _Broken(f"the server answered {error.code} {error.reason}") from None
        raise WorkFailed(f"{request.full_url}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"no answer ({getattr(error, 'reason', None) or error or type(error).__name__})") from None
    with response:
        refusal = None
        if response.status not in (200, 206) or response.length == 0:
            refusal = f"the server answered {response.status} {response.reason} without a file"
        elif response.headers.get_content_type() == "text/html":
            refusal = "the answer is a web page, not the file; is there a login or a proxy in between?"
        elif response.length is None and not response.chunked:
            refusal = "the server does not say how long the file is, so that its end would be unknown"
        if refusal:
            raise WorkFailed(f"{request.full_url}: {refusal}")
        yield response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)  # what has come: read would lose it when the rest does not
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the transfer broke off ({error or type(error).__name__})") from None


def _described(response: http.client.HTTPResponse, url: str) -> _Remote:
    """What a response says about the whole file."""
    length = response.length  # of the body; None if it comes in chunks
    if response.status == 206:
        length = _content_range(response)[1]
    return _Remote(url, length, response.headers["ETag"], response.headers["Last-Modified"])


def _content_range(response: http.client.HTTPResponse) -> tuple[int | None, int | None]:
    """From which byte on a partial answer goes, and how long the file is: None where it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"] or "")
    return (int(match[1]), int(match[2])) if match else (None, None)


def _continues(response: http.client.HTTPResponse, remote: _Remote, known: _Remote | None, have: int) -> bool:
    """Whether a partial answer goes on where the .part ends, in the same file."""
    if known is None or _content_range(response)[0] != have or remote.length != known.length:
        return False
    pairs = ((remote.etag, known.etag), (remote.modified, known.modified))  # a partial answer may leave either out
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _recorded(part: Path, url: str) -> _Remote | None:
    """What is known about the file that `part` begins; None if it cannot be gone on with."""
    try:
        remote = _Remote(**json.loads(_record(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return remote if remote.url == url and remote.length is not None else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)

"""Resumable HTTP downloads of the two benchmarks' raw logs.

An incomplete file is named NAME.part. NAME.part.json records its length and version as the server gave them, so that
a download resumes only from the same file.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError, WorkFailed
from ..files import atomic_file, sha256, write_json

logger = logging.getLogger(__name__)

BLOCK = 1 << 16  # bytes read at a time
TRANSIENT = (408, 429, 500, 502, 503, 504)  # status codes worth another attempt


class Source(NamedTuple):
    """The URL of a raw log and its usual file name."""

    url: str
    file: str


SOURCES = {
    "diginetica": Source("https://sr-gnn.bj.bcebos.com/train-item-views.csv", "train-item-views.csv"),
    "yoochoose": Source("https://paddlerec.bj.bcebos.com/gnn%2Fyoochoose-clicks.dat", "yoochoose-clicks.dat"),
}


@dataclass(frozen=True)
class Patience:
    """Timeout and retries of a download. Times are in seconds."""

    timeout: float = 30.0  # without a byte
    attempts: int = 5  # in a row that receive no new bytes
    pause: float = 0.5  # before a retry, doubled after each attempt without new bytes


class _Remote(NamedTuple):
    """A file as the server describes it; None where the server gives no value."""

    url: str
    length: int | None  # bytes
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """The value of If-Range: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def may_be(self, other: _Remote) -> bool:
        """Whether both can be the same file; a partial response may omit the ETag or the date."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified))
        return self.length == other.length and all(None in pair or pair[0] == pair[1] for pair in pairs)


class _Broken(Exception):
    """An attempt failed; another may succeed."""


def download(
    url: str,
    path: str | os.PathLike,
    sha256_hex: str | None = None,
    patience: Patience = Patience(),
    progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> bool:
    """Download a file. A failed attempt keeps its bytes in PATH.part, and the next one resumes from there.

    Args:
        url: http or https.
        path: the file to write. Its folder is created if needed.
        sha256_hex: the expected SHA-256.
        progress: called with the bytes so far and the total, which is None if the server does not give it.

    Returns:
        True if the file was downloaded, False if it exists already.

    Raises:
        InputError: as `check_url`, or the file exists with another SHA-256.
        WorkFailed: the server refuses the file, all attempts fail, or the download has another SHA-256.
    """
    path = Path(path)
    check_url(url)
    if path.exists():
        if sha256_hex and (found := sha256(path)) != sha256_hex.lower():
            raise InputError(f"{path} exists already with SHA-256 {found}, expected {sha256_hex}; move it away")
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _fetch_all(url, part, patience, progress)
    if sha256_hex and (found := sha256(part)) != sha256_hex.lower():
        _discard(part)
        raise WorkFailed(f"{url}: downloaded a file with SHA-256 {found}, expected {sha256_hex}; it was removed")
    with atomic_file(path) as temporary:
        os.replace(part, temporary)
    _discard(part)
    return True


def check_url(url: str) -> None:
    """Check what would fail in every attempt.

    Raises:
        InputError: not a http or https URL of ASCII characters, or its host or port cannot exist.
    """
    if bad := re.search(r"[^\x21-\x7e]", url):
        raise InputError(f"{ascii(url)[:200]}: {bad[0]!a} in a URL; write it percent-encoded, a host as xn--")
    try:
        parts = urlsplit(url)
        if parts.port == 0 or (parts.hostname or "").encode("idna").startswith(b"."):
            raise ValueError("port 0 or no host")
    except ValueError as error:  # also a UnicodeError, for a label of the host
        raise InputError(f"{url[:200]}: not a valid URL ({error!s:.200})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InputError(f"{url[:200]}: not an http or https URL of a host and a path")


def _fetch_all(url: str, part: Path, patience: Patience, progress: Callable) -> None:
    """Complete `part`, in several attempts if needed."""
    furthest, fruitless = _size(part), 0
    while True:
        try:
            return _attempt(url, part, patience.timeout, progress)
        except _Broken as broken:
            fruitless = 0 if _size(part) > furthest else fruitless + 1
            furthest = max(furthest, _size(part))
            if fruitless >= patience.attempts:
                kept = f"; {part} keeps {_size(part):,} bytes, try again to resume" if _size(part) else ""
                raise WorkFailed(f"{url}: {broken}, {fruitless} times{kept}") from None
            logger.warning("%s; trying again", broken)
            time.sleep(patience.pause * 2**fruitless)


def _attempt(url: str, part: Path, timeout: float, progress: Callable) -> None:
    """Request the missing bytes; raise _Broken if `part` is then still incomplete."""
    known = _recorded(part, url)
    have = _size(part) if known and _size(part) <= known.length else 0
    if known and have == known.length:  # complete, but not renamed yet
        return
    headers = {"User-Agent": "paddle-srgnn", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known.validator} if known.validator else {})
    with _answer(urllib.request.Request(url, headers=headers), timeout, part) as response:
        start, length = 0, response.length  # of the body; the length is None if it comes in chunks
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"] or "")
            start, length = map(int, match.groups()) if match else (None, None)
        remote = _Remote(url, length, response.headers["ETag"], response.headers["Last-Modified"])
        if response.status == 206 and not (known and start == have and remote.may_be(known)):
            _discard(part)
            raise _Broken("the file has changed since the last attempt")
        if response.status != 206:  # the whole file: first attempt, a new version, or no ranges
            have = 0
            _discard(part)
            write_json(_record(part), remote._asdict())
        progress(have, length)
        with open(part, "ab") as file:
            while block := _read(response):
                file.write(block)
                have += len(block)
                progress(have, length)
            file.flush()
            os.fsync(file.fileno())
        if length is not None and (have := _size(part)) != length:
            raise _Broken(f"the server broke off after {have:,} of {length:,} bytes")


@contextlib.contextmanager
def _answer(request: urllib.request.Request, timeout: float, part: Path):
    """The response to a request, if it has the file."""
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # no such range: the .part belongs to another file
            _discard(part)
        if error.code == 416 or error.code in TRANSIENT:
            raise _Broken(f"the server answered {error.code} {error.reason}") from None
        raise WorkFailed(f"{request.full_url}: the server answered {error.code} {error.reason}") from None
    except (ValueError, http.client.InvalidURL) as error:  # the server redirects to an invalid URL
        raise WorkFailed(f"{request.full_url}: the server redirects to a URL that is not valid ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"no answer ({getattr(error, 'reason', None) or error or type(error).__name__})") from None
    with response:
        refusal = None
        if response.status not in (200, 206) or response.length == 0:
            refusal = f"the server answered {response.status} {response.reason} without a file"
        elif response.headers.get_content_type() == "text/html":
            refusal = "the answer is a web page, not the file; is there a login page or a proxy?"
        elif response.length is None and not response.chunked:
            refusal = "the server does not give the file's length"
        if refusal:
            raise WorkFailed(f"{request.full_url}: {refusal}")
        yield response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)  # read() would lose these bytes if the rest failed
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the transfer broke off ({error or type(error).__name__})") from None


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _recorded(part: Path, url: str) -> _Remote | None:
    """The record of `part`; None if it cannot be resumed."""
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

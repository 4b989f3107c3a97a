"""Sessions in and recommendations out as streams of JSON lines or CSV, in bounded memory."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from ..errors import InputError
from .recommender import Recommendation

LONGEST = 1 << 26  # bytes of a line
EXPECTED = '{"session": .., "items": [..]}'

_raw_decode = json.JSONDecoder().raw_decode
_gap = re.compile(r"[\s:,]*")  # between keys and values of an object


class Request(NamedTuple):
    """A session of the input."""

    session: str  # its id as JSON, exactly as given
    items: list[str]  # raw ids, oldest first
    line: int  # its first line, from 1


def read_sessions(
    stream: BinaryIO, source: str, on_bad: Callable[[str], None] | None = None
) -> Iterator[list[Request]]:
    """Parse a stream of sessions as it arrives; its first line decides between JSON lines and CSV.

    Sessions are yielded before the stream is read again, so that an interactive caller gets its answers. A CSV session
    ends when the next one begins or the stream ends.

    Args:
        stream: JSON lines `{"session": any, "items": [raw ids, oldest first]}`, or CSV with the columns session and
            item, each session in consecutive rows in click order. Blank lines are skipped.
        source: the stream's name in messages.
        on_bad: called with a message for each bad line, which is then skipped.

    Yields:
        lists of sessions, which may be empty.

    Raises:
        InputError: a bad line, without `on_bad`. The sessions before it are yielded first.
    """
    parse, rows = None, None
    number = 0
    for lines in _arriving(stream, source):
        requests = []
        for line in lines:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                if not text.strip():
                    continue
                if parse is None:
                    rows = _csv_rows(text)
                    parse = rows.parse if rows else _parse_json
                    if rows:
                        continue
                request = parse(text, number)
            except (InputError, UnicodeDecodeError) as error:
                reason = error if isinstance(error, InputError) else f"not UTF-8 ({error.reason})"
                message = f"{source}, line {number}: {reason}"
                if on_bad is None:
                    yield requests
                    raise InputError(message) from None
                on_bad(message)
                continue
            if request is not None:
                requests.append(request)
        yield requests
    if rows and rows.pending:
        yield [rows.pending]


def _arriving(stream: BinaryIO, source: str) -> Iterator[list[bytes]]:
    """The lines of a stream, grouped by the read that completed them."""
    rest = b""
    while block := _read(stream, source):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST:
            raise InputError(f"{source}: a line of more than {LONGEST:,} bytes; expected a session per line")
        yield lines
    if rest:
        yield [rest]


def _read(stream: BinaryIO, source: str) -> bytes:
    try:
        return stream.read1(1 << 18)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from None


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not valid JSON")  # Python's reader accepts NaN and Infinity


def _parse_json(text: str, number: int) -> Request:
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        expected = f"{EXPECTED}, or CSV with a header session,item"
        raise InputError(f"not JSON ({reason}): {_shown(text)}; expected {expected}") from None
    if not isinstance(record, dict) or not {"session", "items"} <= record.keys():
        raise InputError(f"expected {EXPECTED}, found {_shown(text)}")
    items = record["items"]
    if not isinstance(items, list):
        raise InputError(f'"items" must be a list of raw ids, oldest first, found {_shown(json.dumps(items))}')
    for position, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise InputError(f"items[{position}] is {_shown(json.dumps(item))}; expected a string or whole number")
    return Request(_session_text(text), [str(item) for item in items], number)


def _session_text(text: str) -> str:
    """The text of a JSON object's "session", exactly as given; the last one if the key is repeated."""
    found, position = "", _gap.match(text, text.index("{") + 1).end()
    while text[position] != "}":
        key, position = _raw_decode(text, position)
        start = _gap.match(text, position).end()
        _, end = _raw_decode(text, start)
        found = text[start:end] if key == "session" else found
        position = _gap.match(text, end).end()
    return found


class _CsvRows:
    def __init__(self, header: list[str]):
        self.n_fields = len(header)
        self.session, self.item = header.index("session"), header.index("item")
        self.pending: Request | None = None  # the session that the next row may continue

    def parse(self, text: str, number: int) -> Request | None:
        """Add a row; if it begins a session, return the one before, which is complete."""
        fields = _fields(text)
        if len(fields) != self.n_fields:
            raise InputError(f"{len(fields)} fields, the header has {self.n_fields}: {_shown(text)}")
        session, item = json.dumps(fields[self.session], ensure_ascii=False), fields[self.item]
        if not item:
            raise InputError("column item is empty; expected a raw id")
        complete = None
        if self.pending is None or self.pending.session != session:
            complete, self.pending = self.pending, Request(session, [], number)
        self.pending.items.append(item)
        return complete


def _csv_rows(first_line: str) -> _CsvRows | None:
    """A parser of the rows below a CSV header; None if the line is not a header with session and item."""
    try:
        header = [name.strip() for name in _fields(first_line)]
    except InputError:
        return None
    return _CsvRows(header) if {"session", "item"} <= set(header) else None


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise InputError(f"not a CSV row ({error}): {_shown(line)}; a quoted field must end on its line") from None


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def header(layout: str, titles: Mapping[str, str] | None = None) -> str:
    """The first line of the output: the column names of CSV."""
    return f"session,rank,item,score{'' if titles is None else ',title'}\n" if layout == "csv" else ""


def formatted(
    requests: Iterable[Request], results: Iterable[Recommendation], layout: str, titles: Mapping[str, str] | None = None
) -> str:
    """The lines for sessions and their recommendations; scores have seven digits, as many as a float32 is sure of.

    JSON lines are `{"session": .., "items": [..], "scores": [..], "unknown": n, "fallback": null}`. A CSV row is
    session,rank,item,score, and a session's id is the string itself, or JSON where it is anything else.
    With titles by raw id, JSON lines also have "titles" (null where unknown) and CSV a last column, title.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for request, result in zip(requests, results, strict=True):
        scores = [f"{value:.7g}" for value in result.scores]
        if layout == "csv":
            session = json.loads(request.session)
            name = session if isinstance(session, str) else request.session
            columns = [[name] * len(scores), range(1, len(scores) + 1), result.items, scores]
            if titles is not None:
                columns.append([titles.get(item, "") for item in result.items])
            rows.writerows(zip(*columns, strict=True))
        else:
            items, fallback = json.dumps(result.items, ensure_ascii=False), json.dumps(result.fallback)
            named = ""
            if titles is not None:
                listed = json.dumps([titles.get(item) for item in result.items], ensure_ascii=False)
                named = f'"titles": {listed}, '
            text.write(
                f'{{"session": {request.session}, "items": {items}, {named}'
                f'"scores": [{", ".join(scores)}], '
                f'"unknown": {result.unknown}, "fallback": {fallback}}}\n'
            )
    return text.getvalue()

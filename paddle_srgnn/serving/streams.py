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

_json = json.JSONDecoder()
_gap = re.compile(r"[\s:,]*")  # what stands before a key or a value inside an object


class Request(NamedTuple):
    """A session of the input."""

    session: str  # its id as JSON, as it stands there
    items: list[str]  # raw ids, oldest first
    line: int  # where it begins, from 1


def read_sessions(
    stream: BinaryIO, source: str, layout: str | None = None, on_bad: Callable[[str], None] | None = None
) -> Iterator[list[Request]]:
    """Parse a stream of sessions as it arrives.

    What has arrived is handed on before the stream is read again, so that a person or a program that waits for an
    answer gets it. A CSV session is known to end when the next one begins, or the stream.

    Args:
        stream: JSON lines `{"session": any, "items": [raw ids, oldest first]}`, or CSV with the columns session and
            item, the rows of a session one after another, in click order. Blank lines are passed over.
        source: its name in messages.
        layout: "jsonl" or "csv"; None: CSV if the first line is such a header.
        on_bad: called with a message for each bad line, which is then passed over.

    Yields:
        lists of sessions, which may be empty.

    Raises:
        InputError: a bad line, without `on_bad`, once everything before it has been handed on; the message names it.
    """
    parser: _JsonLines | _Csv | None = None
    number = 0
    for lines in _arriving(stream, source):
        requests = []
        for line in lines:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                if not text.strip():
                    continue
                if parser is None:
                    parser, is_header = _parser(text, layout)
                    if is_header:
                        continue
                request = parser.parse(text, number)
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
    if parser is not None and (last := parser.rest()) is not None:
        yield [last]


def _arriving(stream: BinaryIO, source: str) -> Iterator[list[bytes]]:
    """The lines of a stream in groups, each what one read gave."""
    rest = b""
    while block := stream.read1(1 << 18):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST:
            raise InputError(f"{source}: a line of more than {LONGEST:,} bytes; expected a session per line")
        yield lines
    if rest:
        yield [rest]


def _parser(first_line: str, layout: str | None) -> tuple[_JsonLines | _Csv, bool]:
    """The parser for a stream, and whether its first line is a header."""
    try:
        header = [name.strip() for name in _fields(first_line)]
    except InputError:
        header = []
    if {"session", "item"} <= set(header):
        return _Csv(header), True
    if layout == "csv" and not first_line.lstrip().startswith("{"):
        raise InputError(f"expected a header with the columns session and item, found {_shown(first_line)}")
    return _JsonLines(), False


class _JsonLines:
    def parse(self, text: str, number: int) -> Request:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise InputError(f"no JSON ({reason}); expected {EXPECTED}, or first a CSV header session,item") from None
        if not isinstance(record, dict) or not {"session", "items"} <= record.keys():
            raise InputError(f"expected {EXPECTED}, found {_shown(text)}")
        items = record["items"]
        if not isinstance(items, list):
            raise InputError(f'"items" must be a list of raw ids, oldest first, found {_shown(json.dumps(items))}')
        for position, item in enumerate(items):
            if isinstance(item, bool) or not isinstance(item, (str, int)):
                raise InputError(f"items[{position}] is {_shown(json.dumps(item))}; expected a string or whole number")
        return Request(_value_text(text, "session"), [str(item) for item in items], number)

    def rest(self) -> None:
        return None


class _Csv:
    def __init__(self, header: list[str]):
        self.n_fields = len(header)
        self.session, self.item = header.index("session"), header.index("item")
        self.pending: Request | None = None

    def parse(self, text: str, number: int) -> Request | None:
        """Take a row; if it begins a session, the one before is complete and returned."""
        fields = _fields(text)
        if len(fields) != self.n_fields:
            raise InputError(f"{len(fields)} fields, the header has {self.n_fields}: {_shown(text)}")
        session, item = json.dumps(fields[self.session], ensure_ascii=False), fields[self.item]
        if not item:
            raise InputError("column item is empty; expected a raw id")
        complete, pending = None, self.pending
        if pending is None or pending.session != session:
            complete, self.pending = pending, Request(session, [], number)
        self.pending.items.append(item)
        return complete

    def rest(self) -> Request | None:
        return self.pending


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise InputError(f"no CSV row ({error}); a quoted field must end on its line: {_shown(line)}") from None


def _value_text(text: str, wanted: str) -> str:
    """The text of a key's value in the text of a JSON object; of the last, should there be several."""
    found, position = "", _gap.match(text, text.index("{") + 1).end()
    while text[position] != "}":
        key, position = _json.raw_decode(text, position)
        start = _gap.match(text, position).end()
        _, position = _json.raw_decode(text, start)
        if key == wanted:
            found = text[start:position]
        position = _gap.match(text, position).end()
    return found


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

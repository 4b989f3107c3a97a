import errno
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn.errors import InputError
from paddle_srgnn.serving import streams
from paddle_srgnn.serving.recommender import Recommendation
from paddle_srgnn.serving.streams import formatted, header, read_sessions


def parsed(text: str | bytes, on_bad=None) -> list[tuple]:
    data = text.encode() if isinstance(text, str) else text
    groups = read_sessions(io.BytesIO(data), "input", on_bad)
    return [tuple(request) for group in groups for request in group]


def test_json_lines():
    text = '{"session": 7, "items": ["a", 12]}\r\n\n  {"items": [], "more": {"session": 1}, "session": "x"}'
    assert parsed(text) == [("7", ["a", "12"], 1), ('"x"', [], 3)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(json_values, st.dictionaries(st.text(), json_values, max_size=3), st.booleans())
def test_the_sessions_id_is_kept_to_the_letter(value, others, ascii_only):
    raw = json.dumps(value, ensure_ascii=ascii_only)
    before = "".join(f"{json.dumps(key)}: {json.dumps(other)}, " for key, other in others.items())
    ((session, items, _),) = parsed(f'{{ {before}"session" :{raw} ,"items":["a"] }}')
    assert (session, items) == (raw, ["a"])
    line = formatted([streams.Request(session, items, 1)], [Recommendation((), ())], "jsonl")
    assert json.loads(line)["session"] == value


@pytest.mark.parametrize("raw", ["1.50", "1e400", "12345678901234567890123", '"\\u00e9\\ud800"', '{"a":  [1, {}]}'])
def test_an_id_that_python_would_write_otherwise(raw):
    ((session, _, _),) = parsed(f'{{"session": 1, "session":{raw}, "items": []}}')
    assert session == raw


def test_csv():
    text = '\ufeffitem,note,session\na,,s1\n"b,c",,s1\n\nd,,"s ""2"""\na,,s1\n'
    assert parsed(text) == [('"s1"', ["a", "b,c"], 2), ('"s \\"2\\""', ["d"], 5), ('"s1"', ["a"], 6)]


def test_an_empty_stream_holds_no_sessions():
    assert parsed("") == parsed("\n\n") == parsed("session,item\n") == []


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"session": 1, "items": ["a"]}\nnothing', "input, line 2: not JSON"),
        ('\n{"session": 1}', 'line 2: expected {"session": .., "items"'),
        ("[1]", "line 1: expected"),
        ('{"session": 1, "items": "a"}', "must be a list"),
        ('{"session": 1, "items": ["a", 1.5]}', r"items\[1\] is 1.5"),
        ('{"session": 1, "items": [true]}', r"items\[0\] is true"),
        ('{"session": 1, "items": [["a"]]}', r"items\[0\] is"),
        (b'{"session": "\xff", "items": []}', "line 1: not UTF-8"),
        ("visit,item\n1,2\n", "line 1: not JSON .*: visit,item; .* header session,item"),
        ("session,item\n1\n", "line 2: 1 fields, the header has 2"),
        ("session,item\n1,\n", "line 2: column item is empty"),
        ('session,item\n1,2\n1,"3\n', "line 3: not a CSV row"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"session": NaN, "items": ["a"]}', r"line 1: not JSON \(NaN is not valid JSON\)"),
        ('{"session": [-Infinity], "items": ["a"]}', r"line 1: not JSON \(-Infinity is not valid JSON\)"),
        ('{"session": 1, "items": ["a"], "more": Infinity}', "line 1: not JSON"),
        ('{"session": ' + "9" * 5000 + ', "items": ["a"]}', "line 1: not JSON"),
        ("session,item\n1," + "a" * 140_000 + "\n", r"line 2: not a CSV row \(field larger than field limit"),
        (b"session,item\n1,\xff\n", "line 2: not UTF-8"),
        (b"\xff\xfe" * 1000, "line 1: not UTF-8"),
    ],
)
def test_a_bad_line_is_named(text, message):
    with pytest.raises(InputError, match=message):
        parsed(text)


def test_what_stands_before_a_bad_line_is_handed_on_first():
    groups = read_sessions(io.BytesIO(b'{"session": 1, "items": []}\nbad\n{"session": 2, "items": []}\n'), "input")
    assert [request.session for request in next(groups)] == ["1"]
    with pytest.raises(InputError, match="line 2"):
        next(groups)


def test_bad_lines_can_be_passed_over():
    messages = []
    text = 'bad\n{"session": 1, "items": []}\n{}\n{"session": 2, "items": []}\n'
    assert [session for session, *_ in parsed(text, on_bad=messages.append)] == ["1", "2"]
    assert [message.split(":")[0] for message in messages] == ["input, line 1", "input, line 3"]
    assert parsed("session,item\n1,a\n1\n1,b\n", on_bad=messages.append) == [('"1"', ["a", "b"], 2)]


class Pipe:
    """A stream whose reads give what was written piece by piece."""

    def __init__(self, *pieces: bytes):
        self.pieces = list(pieces)

    def read1(self, _: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_what_has_arrived_is_handed_on_before_the_next_read():
    pipe = Pipe(b'{"session": 1, "items": []}\n{"sess', b'ion": 2, "it', b'ems": []}\n{"session": 3, "items": []}')
    sessions = [[request.session for request in group] for group in read_sessions(pipe, "pipe")]
    assert sessions == [["1"], [], ["2"], ["3"]]
    pipe = Pipe(b"session,item\n1,a\n1,b\n2,", b"a\n", b"2,b\n")
    sessions = [[request.session for request in group] for group in read_sessions(pipe, "pipe")]
    assert sessions == [[], ['"1"'], [], ['"2"']]


def test_a_stream_that_cannot_be_read_is_named():
    class Folder:
        def read1(self, _: int) -> bytes:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")

    with pytest.raises(InputError, match="standard input cannot be read: Is a directory"):
        list(read_sessions(Folder(), "standard input"))


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "LONGEST", 100)
    with pytest.raises(InputError, match="more than 100 bytes"):
        list(read_sessions(Pipe(b"x" * 60, b"x" * 60), "pipe"))


def test_the_lines_of_the_output():
    requests = [streams.Request('"a,b"', [], 1), streams.Request('{"x": 1}', [], 2), streams.Request("7", [], 3)]
    some, none = Recommendation(("é", "2"), (1.25, -0.1234567891)), Recommendation((), ())
    results = [some, none, Recommendation(("p",), (9.0,), 2, "popular")]
    assert header("jsonl") + formatted(requests, results, "jsonl") == (
        '{"session": "a,b", "items": ["é", "2"], "scores": [1.25, -0.1234568], "unknown": 0, "fallback": null}\n'
        '{"session": {"x": 1}, "items": [], "scores": [], "unknown": 0, "fallback": null}\n'
        '{"session": 7, "items": ["p"], "scores": [9], "unknown": 2, "fallback": "popular"}\n'
    )
    assert header("csv") + formatted(requests, results, "csv") == (
        'session,rank,item,score\n"a,b",1,é,1.25\n"a,b",2,2,-0.1234568\n7,1,p,9\n'
    )
    titles = {"é": "E, acute"}
    assert header("jsonl", titles) + formatted(requests[:1], results[:1], "jsonl", titles) == (
        '{"session": "a,b", "items": ["é", "2"], "titles": ["E, acute", null], "scores": [1.25, -0.1234568], '
        '"unknown": 0, "fallback": null}\n'
    )
    assert header("csv", titles) + formatted(requests[:1], results[:1], "csv", titles) == (
        'session,rank,item,score,title\n"a,b",1,é,1.25,"E, acute"\n"a,b",2,2,-0.1234568,\n'
    )

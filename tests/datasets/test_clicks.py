"""The readers, on files written here: what they read, and how they refuse what they cannot."""

from __future__ import annotations

import gzip
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.datasets import clicks as reader
from paddle_srgnn.datasets.clicks import read_csv, read_diginetica, read_inter, read_yoochoose
from paddle_srgnn.errors import InputError

MAY_1 = 1462060800  # 2016-05-01T00:00:00Z
DIGINETICA = """session_id;user_id;item_id;timeframe;eventdate
7;NA;0081;2000;2016-05-01
9;12;31;5;2016-05-02
7;NA;31;1000;2016-05-01
"""
YOOCHOOSE = """11,2014-04-07T08:51:09.277Z,214536502,0
11,2014-04-07T08:54:46.998Z,214536506,0
12,2014-04-07T08:51:09.277Z,214536506,S
"""


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def columns(clicks) -> dict[str, list]:
    return {name: clicks.table[name].tolist() for name in clicks.table}


def test_diginetica(write):
    clicks = read_diginetica(write(DIGINETICA))
    assert columns(clicks) == {
        "session": [0, 1, 0],
        "item": [0, 1, 1],
        "time": [MAY_1, MAY_1 + 86400, MAY_1],
        "order": [2000, 5, 1000],
    }
    assert clicks.item_ids == ["0081", "31"]  # as they stand, zeros included
    kinds = {"session": np.int64, "item": np.int32, "time": np.int64, "order": np.int64}
    assert clicks.table.dtypes.to_dict() == {name: np.dtype(kind) for name, kind in kinds.items()}


@pytest.mark.parametrize("change", ["spelling", "windows", "blank lines", "more columns", "bom", "chunks"])
def test_diginetica_in_other_guises(write, change, monkeypatch):
    text = {
        "spelling": DIGINETICA.replace("session_id;user_id;item_id", "sessionId;userId;itemId"),
        "windows": DIGINETICA.replace("\n", "\r\n"),
        "blank lines": DIGINETICA.replace("9;12", "\n9;12") + "\n\n",
        "more columns": DIGINETICA.replace("\n", ";x\n"),
        "bom": "\ufeff" + DIGINETICA,
        "chunks": DIGINETICA,
    }[change]
    if change == "chunks":
        monkeypatch.setattr(reader, "CHUNK", 1)
    clicks = read_diginetica(write(text))
    expected = read_diginetica(write(DIGINETICA, "plain.csv"))
    assert columns(clicks) == columns(expected) and clicks.item_ids == expected.item_ids


def test_compressed(write, tmp_path):
    expected = columns(read_diginetica(write(DIGINETICA)))
    assert columns(read_diginetica(write(gzip.compress(DIGINETICA.encode()), "log.csv.gz"))) == expected
    with zipfile.ZipFile(tmp_path / "log.csv.zip", "w") as file:
        file.writestr("log.csv", DIGINETICA)
    assert columns(read_diginetica(tmp_path / "log.csv.zip")) == expected


@pytest.mark.parametrize("header", ["", "session_id,timestamp,item_id,category\n"])
def test_yoochoose(write, header):
    clicks = read_yoochoose(write(header + YOOCHOOSE))
    assert columns(clicks) == {
        "session": [0, 0, 1],
        "item": [0, 1, 1],
        "time": [1396860669, 1396860886, 1396860669],  # UTC; the fraction of a second is cut off, not rounded
    }
    assert clicks.item_ids == ["214536502", "214536506"]


def test_inter_sorts_a_session_by_time(write):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    text = header + "5\tb\t1\t20.5\n6\ta\t1\t7\n5\ta\t1\t20.25\n5\tc\t1\t20.5\n"
    clicks = read_inter(write(text))
    assert columns(clicks) == {"session": [0, 0, 0, 1], "item": [1, 0, 2, 1], "time": [20, 20, 20, 7]}
    assert clicks.item_ids == ["b", "a", "c"]
    assert columns(read_inter(write(text), {"session": "rating"}))["session"] == [0, 0, 0, 0]
    sessions = read_inter(write(text.replace("rating:float", "session_id:token")))  # preferred to user_id
    assert sessions.table["session"].nunique() == 1


@pytest.mark.parametrize(
    "times",
    [
        ["1396860669", "1396860670", "0"],
        ["1396860669.9", "1.39686067e9", "0.5"],
        ["2014-04-07T08:51:09Z", "2014-04-07T10:51:10+02:00", "1970-01-01"],
        ["2014-04-07 08:51:09.999", "2014-04-07T08:51:10", "1970-01-01T00:00:00Z"],
    ],
)
def test_csv_times(write, times):
    rows = "".join(f"{i}|{time}|x\n" for i, time in enumerate(times))
    clicks = read_csv(write("s|when|what\n" + rows), {"session": "s", "time": "when", "item": "what"}, sep="|")
    assert columns(clicks) == {"session": [0, 1, 2], "item": [0, 0, 0], "time": [1396860669, 1396860670, 0]}


@pytest.mark.parametrize("times", [(-62135596800, -62135596799), (99999999998, 99999999999)])
def test_the_first_and_the_last_times(write, times):
    clicks = read_csv(write("session,item,time\n" + "".join(f"1,{'a' * 1000},{time}\n" for time in times)))
    assert clicks.table["time"].tolist() == list(times) and clicks.item_ids == ["a" * 1000]


def test_csv_quotes_and_ids_that_look_missing(write):
    clicks = read_csv(write('item,session,time\n"a, ""b""",1,1\nNA,1,2\nnull,1,3\n007,1,4\n7,1,5\n'))
    assert clicks.item_ids == ['a, "b"', "NA", "null", "007", "7"]


WRONG = {
    "missing column": (
        read_diginetica,
        DIGINETICA.replace("eventdate", "date"),
        ["line 1", "eventdate", "timeframe, date"],
    ),
    "missing csv column": (read_csv, "a,b\n1,2\n", ["line 1", "session, item, time", "a, b", "which columns"]),
    "missing inter column": (read_inter, "user_id:token\tx:token\n1\t2\n", ["item_id, timestamp", "user_id, x"]),
    "not yoochoose": (read_yoochoose, "a,b\n1,2\n", ["session_id, timestamp, item_id", "a, b"]),
    "non-numeric": (read_diginetica, DIGINETICA.replace("5;2016", "x5;2016"), ["line 3", "timeframe", "'x5'"]),
    "half a number": (read_diginetica, DIGINETICA.replace("5;2016", "0.5;2016"), ["line 3", "'0.5'", "whole number"]),
    "a large number": (read_diginetica, DIGINETICA.replace("5;2016", f"{2**63};2016"), ["line 3", "of 64 bits"]),
    "non-numeric, blank line before": (
        read_diginetica,
        DIGINETICA.replace("9;12;31;5", "\n9;12;31;y"),
        ["line 4", "'y'"],
    ),
    "bad date": (
        read_diginetica,
        DIGINETICA.replace("2016-05-02", "2016-13-02"),
        ["line 3", "eventdate", "2016-13-02"],
    ),
    "date in other form": (read_diginetica, DIGINETICA.replace("2016-05-02", "02.05.2016"), ["line 3", "YYYY-MM-DD"]),
    "bad timestamp": (read_yoochoose, YOOCHOOSE.replace(":54:", ":74:"), ["line 2", "field 2", ":74:"]),
    "a year is no timestamp": (read_yoochoose, YOOCHOOSE + "12,2014,2,0\n", ["line 4", "'2014'"]),
    "text among numbers": (read_csv, "session,item,time\n1,1,5\n1,1,2014-04-07\n", ["line 3", "time", "2014-04-07"]),
    "number among timestamps": (read_csv, "session,item,time\n1,1,2014-04-07\n1,1,20140407\n", ["line 3", "20140407"]),
    "milliseconds": (read_csv, "session,item,time\n1,1,1396860669277\n", ["line 2", "milliseconds"]),
    "before the year 1": (read_csv, "session,item,time\n1,1,-99999999999\n", ["line 2", "from the year 1 to 5138"]),
    "a long id": (read_csv, f"session,item,time\n1,1,5\n1,{'a' * 140_000},5\n", ["line 3", "at most 1,000 characters"]),
    "infinite": (read_csv, "session,item,time\n1,1,5\n1,1,inf\n", ["line 3", "'inf'"]),
    "missing item": (read_diginetica, DIGINETICA.replace(";31;5;", ";;5;"), ["line 3", "item_id is empty"]),
    "missing session": (read_yoochoose, YOOCHOOSE.replace("12,", ","), ["line 3", "field 1 is empty"]),
    "short line": (read_diginetica, DIGINETICA + "7;NA;31\n", ["line 5", "is empty"]),
    "empty": (read_diginetica, "", ["is empty"]),
    "blank": (read_csv, "\n\n", ["is empty"]),
    "header only": (read_diginetica, DIGINETICA.split("\n")[0] + "\n", ["no clicks"]),
    "noise": (read_diginetica, bytes(range(256)) * 50, ["not text"]),
    "noise later": (read_diginetica, DIGINETICA.encode() + b"7;NA;\xff\xfe;1;2016-05-01\n", ["not text"]),
    "NULs": (read_yoochoose, b"\0" * 1000, ["NUL"]),
    "NULs later": (read_yoochoose, YOOCHOOSE.encode() + b"\0" * 1000, ["line 4"]),
    "unclosed quote": (read_csv, 'session,item,time\n"1,2,3\n4,5,6\n', ["cannot be read"]),
    "column twice": (lambda p: read_csv(p, {"item": "session"}), "session,item,time\n1,1,1\n", ["twice"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named(write, case):
    read, content, said = WRONG[case]
    path = write(content)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for words in said:
        assert words in message, message
    assert len(message) < len(str(path)) + 300


def test_no_file_a_folder_and_a_broken_archive(write, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_diginetica(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_csv(tmp_path)
    whole = gzip.compress(random.Random(0).randbytes(1000) + DIGINETICA.encode())
    for content, name in ((whole[:500], "cut.csv.gz"), (b"no archive", "log.csv.gz"), (b"no archive", "log.csv.zip")):
        with pytest.raises(InputError, match="cannot be read"):
            read_diginetica(write(content, name))

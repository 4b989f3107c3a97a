"""The paper's protocol: every rule on a log worked by hand, then random logs against the rules in plain Python."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn.datasets.clicks import Clicks, read_diginetica, read_yoochoose
from paddle_srgnn.datasets.pickles import authors_samples
from paddle_srgnn.datasets.protocol import DAY, build_sessions
from paddle_srgnn.errors import InputError

# With items clicked fewer than 2 times removed and 7 days for testing:
LOG = """session_id;user_id;item_id;timeframe;eventdate
s1;;b;300;2016-05-01
s2;;x;1;2016-05-01
s3;;a;1;2016-05-02
s3;;x;2;2016-05-02
s1;;a;100;2016-05-01
s3;;c;3;2016-05-02
s11;;e;7;2016-05-01
s11;;b;6;2016-05-01
s11;;e;7;2016-05-01
s4;;c;1;2016-05-09
s4;;b;2;2016-04-30
s5;;a;1;2016-05-03
s5;;b;2;2016-05-03
s8;;b;1;2016-05-10
s8;;b;2;2016-05-10
s6;;c;1;2016-05-04
s6;;d;2;2016-05-04
s6;;a;3;2016-05-04
s7;;d;1;2016-05-10
s7;;d;2;2016-05-10
s9;;a;1;2016-05-20
s10;;y;1;2016-05-25
s10;;z;2;2016-05-25
"""
# s2, s9: one click, dropped before items are counted, so that x has one click left and goes, as do y and z and so s10.
# The latest date of what is kept is 05-10, the boundary 05-03: s5 is on it and in neither part.
# s4 spans two days; its last row in the file makes it the earliest. s1 and s11 are of one date: s1 appears first.
# Training: s4 c b | s1 a b (by timeframe) | s11 b e e | s3 a c.  Hence c=1, b=2, a=3, e=4.
# Test: s6 c a (d is not in training) | s8 b b; s7 is left with nothing.
APRIL_30, MAY_1, MAY_2, MAY_4, MAY_10 = (1462060800 + day * DAY for day in (-1, 0, 1, 3, 9))


@pytest.fixture
def log(tmp_path) -> Clicks:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return read_diginetica(path)


def nested(sessions) -> list[list[int]]:
    bounds = sessions.offsets.tolist()
    return [sessions.items[start:end].tolist() for start, end in pairwise(bounds)]


def test_every_rule_by_hand(log):
    dataset = build_sessions(log, "tiny", "by hand", test_days=7, min_item_clicks=2)
    assert nested(dataset.train) == [[1, 2], [3, 2], [2, 4, 4], [3, 1]]
    assert nested(dataset.test) == [[1, 3], [2, 2]]
    assert dataset.train.dates.tolist() == [APRIL_30, MAY_1, MAY_1, MAY_2]
    assert dataset.test.dates.tolist() == [MAY_4, MAY_10]
    assert dataset.item_ids == ["", "c", "b", "a", "e"] and dataset.n_items == 5
    assert dataset.item_clicks.tolist() == [0, 2, 3, 2, 2]
    assert (dataset.train.n_samples, dataset.test.n_samples) == (5, 2)
    assert dataset.train.first_samples is None
    assert dataset.name == "tiny" and dataset.meta["source"] == "by hand"
    assert dataset.meta["parameters"] == {"test_days": 7.0, "min_item_clicks": 2, "fraction": "1"}
    dtypes = [
        dataset.train.items.dtype,
        dataset.train.offsets.dtype,
        dataset.train.dates.dtype,
        dataset.item_clicks.dtype,
    ]
    assert dtypes == ["int32", "int64", "int64", "int64"]
    assert dataset.test.items.dtype == "int32"


@pytest.mark.parametrize(
    ("fraction", "sessions", "first_samples", "samples"),
    [
        ("2/5", [[2, 4, 4], [3, 1]], 1, ([[2], [3]], [4, 1])),  # the longest prefix of s11 is lost
        ("1/2", [[2, 4, 4], [3, 1]], 1, ([[2], [3]], [4, 1])),  # half of 5 is 2
        ("3/5", [[2, 4, 4], [3, 1]], None, ([[2, 4], [2], [3]], [4, 4, 1])),
        ("1/5", [[3, 1]], None, ([[3]], [1])),
    ],
)
def test_the_last_fraction_of_the_samples(log, fraction, sessions, first_samples, samples):
    dataset = build_sessions(log, "tiny", "", 7, 2, Fraction(fraction))
    assert nested(dataset.train) == sessions
    assert dataset.train.first_samples == first_samples
    assert authors_samples(dataset.train) == samples
    assert dataset.train.n_samples == len(samples[1])
    assert dataset.n_items == 5  # numbered in the whole training set
    assert nested(dataset.test) == [[1, 3], [2, 2]]
    assert dataset.item_clicks.sum() == len(dataset.train.items)


def test_sessions_of_one_date_keep_their_order():
    # 200 sessions on two days in turn, more than a sorting algorithm leaves in order by chance; one more for testing.
    session, day = range(201), [0, 1] * 100 + [9]
    table = pd.DataFrame({"session": session, "item": session, "time": day}).loc[lambda t: t.index.repeat(2)]
    table["time"] *= DAY
    table.loc[200, "item"] = 0
    dataset = build_sessions(Clicks(table, [str(s) for s in session]), "ties", "", test_days=7, min_item_clicks=2)
    assert dataset.item_ids[1:] == [str(s) for s in [*range(0, 200, 2), *range(1, 200, 2)]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"test_days": 11}, "smaller test_days"),
        ({"test_days": 0}, "larger test_days"),
        ({"min_item_clicks": 50}, "smaller min_item_clicks"),
        ({"fraction": Fraction(1, 6)}, "larger fraction"),
        ({"fraction": "1/0"}, "fraction='1/0': expected"),
        ({"test_days": -1}, "test_days=-1: expected"),
        ({"min_item_clicks": 0}, "min_item_clicks=0: expected"),
    ],
)
def test_nothing_left(log, arguments, said):
    with pytest.raises(InputError, match=said):
        build_sessions(log, "tiny", "", **({"test_days": 7, "min_item_clicks": 2} | arguments))


def test_no_session_of_two_clicks():
    table = pd.DataFrame({"session": [0, 1], "item": [0, 0], "time": [0, 1]})
    with pytest.raises(InputError, match="no session has two clicks"):
        build_sessions(Clicks(table, ["a"]), "tiny", "", 1)


def in_plain_python(rows, test_days, min_item_clicks, fraction):
    """The protocol once more, slowly: (train samples, test samples, raw ids), or None where nothing is left."""
    sessions, dates = {}, {}
    for session, item, day, order in rows:
        sessions.setdefault(session, []).append((order, item))
        dates[session] = day * DAY
    sessions = {s: [item for _, item in sorted(c, key=lambda click: click[0])] for s, c in sessions.items()}
    sessions = {s: c for s, c in sessions.items() if len(c) > 1}
    counts = {}
    for clicks in sessions.values():
        for item in clicks:
            counts[item] = counts.get(item, 0) + 1
    sessions = {s: [item for item in c if counts[item] >= min_item_clicks] for s, c in sessions.items()}
    sessions = {s: c for s, c in sessions.items() if len(c) > 1}
    if not sessions:
        return None
    boundary = max(dates[s] for s in sessions) - test_days * DAY
    by_date = sorted(sessions, key=lambda s: dates[s])
    number, train, test = {}, [], []
    for s in by_date:
        if dates[s] < boundary:
            for item in sessions[s]:
                number.setdefault(item, len(number) + 1)
            train.append([number[item] for item in sessions[s]])
    for s in by_date:
        if dates[s] > boundary:
            known = [number[item] for item in sessions[s] if item in number]
            if len(known) > 1:
                test.append(known)
    samples = [[(c[:cut], c[cut]) for c in part for cut in range(len(c) - 1, 0, -1)] for part in (train, test)]
    kept = len(samples[0]) * fraction.numerator // fraction.denominator
    if not kept or not samples[1]:
        return None
    return samples[0][-kept:], samples[1], [str(item) for item in number]


rows = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=40
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(rows, st.integers(1, 4), st.integers(1, 3), st.sampled_from([Fraction(1), Fraction(1, 3), Fraction(2, 3)]))
def test_random_logs_agree_with_plain_python(rows, test_days, min_item_clicks, fraction):
    expected = in_plain_python(rows, test_days, min_item_clicks, fraction)
    frame = pd.DataFrame(rows, columns=["session", "item", "day", "order"])
    item, item_ids = pd.factorize(frame["item"])
    session = pd.factorize(frame["session"])[0]
    table = pd.DataFrame({"session": session, "item": item, "time": frame["day"] * DAY, "order": frame["order"]})
    clicks = Clicks(table, item_ids.astype(str).tolist())
    if expected is None:
        with pytest.raises(InputError):
            build_sessions(clicks, "random", "", test_days, min_item_clicks, fraction)
        return
    dataset = build_sessions(clicks, "random", "", test_days, min_item_clicks, fraction)
    train, test = ([*zip(*authors_samples(part), strict=True)] for part in (dataset.train, dataset.test))
    assert (train, test, dataset.item_ids[1:]) == expected


def digest(content) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


# SHA-256 of json.dumps of what the authors' preprocessing writes for real excerpts of the two logs: (inputs, labels) of
# train.txt and of test.txt.
AUTHORS = {
    "diginetica": (
        "45dbebd19dc7014d2cccadf9c7186f510384c1d53d201c974d198e2647840155",
        "442394bf08eb249c7760415bcd10335aa37dea864cb71610e5545fbdfb06b3a1",
    ),
    "yoochoose1_4": (
        "ee19a07df9e8582aa15a54340189863ebc4e9f249ef8f4389871e80509cc50c4",
        "900e92c074ad379568c5ffad71e56ab9e6029e3f80bf067871821a48fe56d6c4",
    ),
    "yoochoose1_64": (
        "eacfcb85274fc4dbf7b612717298e0c2711d8a830175d9d8103aa6987452e961",
        "900e92c074ad379568c5ffad71e56ab9e6029e3f80bf067871821a48fe56d6c4",
    ),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_output_sample_for_sample(shared, name):
    raw = shared / "data" / "raw"
    if name == "diginetica":
        log = read_diginetica(raw / "diginetica-sample" / "sample_train-item-views.csv")
        dataset = build_sessions(log, name, "", test_days=7)
    else:
        log = read_yoochoose(raw / "yoochoose-100k" / "yoochoose-clicks.dat")
        dataset = build_sessions(log, name, "", test_days=1, fraction=Fraction(1, int(name.split("_")[1])))
    assert (digest(authors_samples(dataset.train)), digest(authors_samples(dataset.test))) == AUTHORS[name]

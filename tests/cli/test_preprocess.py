"""tools/preprocess.py as a person runs it, on right and on wrong input."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
from pathlib import Path

import pytest

from paddle_srgnn.datasets.load import load_dataset
from paddle_srgnn.datasets.sessions import open_dataset

SESSIONS = {"s1": ("05-01", "aab"), "s2": ("05-02", "bba"), "s3": ("05-03", "abab"), "s4": ("05-20", "ba")}
DIGINETICA = "session_id;user_id;item_id;timeframe;eventdate\n" + "".join(
    f"{session};NA;{item};{order};2016-{day}\n"
    for session, (day, items) in SESSIONS.items()
    for order, item in enumerate(items)
)
CSV = "session,item,time\n" + "".join(
    f"{session},{item},2016-{day}T00:00:0{order}\n"
    for session, (day, items) in SESSIONS.items()
    for order, item in enumerate(items)
)
# a=1 and b=2 in training; s4 is the one test session.
TRAIN = ([[1, 1], [1], [2, 2], [2], [1, 2, 1], [1, 2], [1]], [2, 1, 1, 2, 2, 1, 2])
TEST = ([[2]], [1])


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "train-item-views.csv").write_text(DIGINETICA)
    (folder / "log.csv").write_text(CSV)
    return folder


def load(path: Path):
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("given", ["diginetica", "diginetica folder", "csv", "csv columns", "inter"])
def test_the_same_sessions_from_every_format(run_command, raw, tmp_path, given):
    renamed = CSV.replace("session,item,time", "who,what,when").replace(",", "\t")
    (raw / "log.tsv").write_text(renamed)
    (raw / "log.inter").write_text(renamed.replace("who\twhat\twhen", "who:token\titem_id:token\ttimestamp:float"))
    arguments = {
        "diginetica": ["diginetica", "--raw", raw / "train-item-views.csv"],
        "diginetica folder": ["diginetica", "--raw", raw],
        "csv": ["csv", "--raw", raw / "log.csv"],
        "csv columns": [
            "csv",
            "--raw",
            raw / "log.tsv",
            "--columns",
            "session=who,time=when,item=what",
            "--sep",
            "\\t",
        ],
        "inter": ["inter", "--raw", raw / "log.inter", "--columns", "session=who"],
    }[given]
    out, pickles = tmp_path / "new" / "tiny", tmp_path / "p"
    process = run_command("preprocess", *arguments, "--out", out, "--to-pickle", pickles)
    assert process.returncode == 0, process.stderr
    assert load(pickles / "train.txt") == TRAIN and load(pickles / "test.txt") == TEST
    assert load(pickles / "all_train_seq.txt") == [[1, 1, 2], [2, 2, 1], [1, 2, 1, 2]]
    load_dataset(out)
    dataset = open_dataset(out)
    assert dataset.name == "tiny" and dataset.item_ids == ["", "a", "b"]
    assert f"next: srgnn train --data {out}" in process.stdout
    assert "3 sessions" in process.stdout and "7 samples" in process.stdout and process.stderr == ""


def test_options_reach_the_protocol(run_command, raw, tmp_path):
    options = ["--test-days", "17.5", "--min-item-clicks", "2", "--fraction", "1/2", "--name", "half"]
    process = run_command("preprocess", "diginetica", "--raw", raw, "--out", tmp_path / "d", *options)
    assert process.returncode == 0, process.stderr
    dataset = open_dataset(tmp_path / "d")
    # The boundary is noon of 05-02, so that s3 is for testing; half of 4 samples are the 2 of s2.
    assert (dataset.name, dataset.train.n_samples, dataset.test.n_samples) == ("half", 2, 4)
    assert dataset.meta["parameters"] == {"test_days": 17.5, "min_item_clicks": 2, "fraction": "1/2"}


def test_pickles_in_and_force(run_command, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "train.txt").write_bytes(pickle.dumps(TRAIN))
    (tmp_path / "p" / "test.txt").write_bytes(pickle.dumps(TEST))
    for force in ([], ["--force"]):
        process = run_command("preprocess", "srgnn-pickle", "--raw", tmp_path / "p", "--out", tmp_path / "d", *force)
        assert process.returncode == 0, process.stderr
    assert open_dataset(tmp_path / "d").train.n_samples == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "p"]


def test_the_time_zone_does_not_matter(run_command, tmp_path):
    # 04:30 UTC on the second day is still the first day in New York, and the boundary is a day before the last click.
    rows = [(1, "01T04:30:00"), (2, "01T04:30:01"), (3, "02T04:30:00"), (4, "02T04:30:01")]
    text = "".join(f"{session},2014-04-{time}.500Z,{item},0\n" for session, time in rows for item in (7, 8))
    (tmp_path / "yoochoose-clicks.dat").write_text(text)
    hashes = set()
    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        arguments = ["--raw", tmp_path, "--out", tmp_path / zone[:3], "--min-item-clicks", "1"]
        process = run_command("preprocess", "yoochoose", *arguments, TZ=zone)
        assert process.returncode == 0, process.stderr
        hashes.add(open_dataset(tmp_path / zone[:3]).hash)
    dataset = open_dataset(tmp_path / "UTC")
    assert len(hashes) == 1
    assert dataset.train.dates.tolist() == [1396326600]  # session 2 is exactly on the boundary
    assert dataset.test.dates.tolist() == [1396413000, 1396413001]


def test_the_sample(run_command, tmp_path):
    process = run_command("preprocess", "sample", "--out", tmp_path / "d", "--name", "mine")
    assert process.returncode == 0, process.stderr
    load_dataset(tmp_path / "d")
    assert open_dataset(tmp_path / "d").name == "mine"


def test_help(run_command):
    process = run_command("preprocess", "--help")
    assert process.returncode == 0 and "--min-item-clicks" in process.stdout


def bad(content: str | bytes):
    def arguments(raw: Path) -> list:
        path = raw / "bad.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ["diginetica", "--raw", path]

    return arguments


def trapped(raw: Path) -> list:
    (raw / "test.txt").write_bytes(pickle.dumps([Trap(str(raw / "sprung"))]))
    (raw / "all_train_seq.txt").write_bytes(pickle.dumps([[1, 2]]))
    return ["srgnn-pickle", "--raw", raw]


def log(*more):
    return lambda raw: ["diginetica", "--raw", raw, *more]


WRONG = {
    "missing column": (bad(DIGINETICA.replace("item_id", "item")), "no column item_id"),
    "non-numeric": (bad(DIGINETICA.replace(";1;2016", ";one;2016", 1)), "line 3: column timeframe is 'one'"),
    "bad timestamp": (bad(DIGINETICA.replace("2016-05-02", "2016-05-32")), "line 5: column eventdate"),
    "missing id": (bad(DIGINETICA.replace(";b;", ";;", 1)), "line 4: column item_id is empty"),
    "empty file": (bad(""), "is empty"),
    "header only": (bad(DIGINETICA[:47]), "no clicks"),
    "binary noise": (bad(random.Random(0).randbytes(20_000)), "bad.csv"),
    "missing file": (lambda raw: ["csv", "--raw", raw / "nothing.csv"], "does not exist"),
    "a folder": (lambda raw: ["csv", "--raw", raw], "is a folder"),
    "a folder without the log": (lambda raw: ["yoochoose", "--raw", raw], "is a folder"),
    "wrong format": (lambda raw: ["yoochoose", "--raw", raw / "log.csv"], "no column session_id"),
    "wrong columns": (lambda raw: ["csv", "--raw", raw / "log.csv", "--columns", "item=sku"], "no column sku"),
    "wrong separator": (lambda raw: ["csv", "--raw", raw / "log.csv", "--sep", ";"], "--sep"),
    "all within the test period": (log("--test-days", "60"), "--test-days"),
    "everything filtered": (log("--min-item-clicks", "50"), "--min-item-clicks"),
    "nothing of the fraction": (log("--fraction", "1/64"), "--fraction"),
    "code in a pickle": (trapped, "mkdir"),
    "no pickles": (lambda raw: ["srgnn-pickle", "--raw", raw], "all_train_seq.txt does not exist"),
    "no raw": (lambda raw: ["diginetica"], "--raw"),
    "raw for the sample": (lambda raw: ["sample", "--raw", raw], "--raw does not apply to sample"),
    "columns for diginetica": (log("--columns", "item=x"), "--columns does not apply to diginetica"),
    "separator for inter": (lambda raw: ["inter", "--raw", raw, "--sep", ";"], "--sep does not apply to inter"),
    "fraction of pickles": (lambda raw: ["srgnn-pickle", "--raw", raw, "--fraction", "1/4"], "--fraction does not"),
    "name": (log("--name", "a/b"), "--name"),
    "fraction above 1": (log("--fraction", "3/2"), "not a fraction in (0, 1]"),
    "fraction of nothing": (log("--fraction", "1/0"), "not a fraction in (0, 1]"),
    "no number of days": (log("--test-days", "week"), "week"),
    "no days": (log("--test-days", "0"), "not a positive number"),
    "endless days": (log("--test-days", "nan"), "not a positive number"),
    "unknown role": (lambda raw: ["csv", "--raw", raw / "log.csv", "--columns", "user=item"], "session=NAME"),
    "unknown kind": (lambda raw: ["amazon", "--raw", raw], "amazon"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(refused, raw, tmp_path, case):
    make, said = WRONG[case]
    arguments = make(raw)
    before = sorted(tmp_path.rglob("*"))
    line = refused("preprocess", *arguments, "--out", tmp_path / "d", "--to-pickle", tmp_path / "p")
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before  # no output, no leftovers, and no trap has sprung


@pytest.mark.parametrize("existing", ["d", "p"])
def test_existing_output_is_kept(refused, raw, tmp_path, existing):
    (tmp_path / existing).mkdir()
    (tmp_path / existing / "thesis.tex").write_text("years of work")
    arguments = ["diginetica", "--raw", raw, "--out", tmp_path / "d", "--to-pickle", tmp_path / "p"]
    before = sorted(tmp_path.rglob("*"))
    assert "exists already" in refused("preprocess", *arguments)
    assert "replaces only what this command wrote" in refused("preprocess", *arguments, "--force")
    assert sorted(tmp_path.rglob("*")) == before


def test_outputs_in_one_another(refused, raw, tmp_path):
    arguments = ["diginetica", "--raw", raw, "--out", tmp_path / "d"]
    for pickles in (tmp_path / "d", tmp_path / "d" / "p", tmp_path):
        assert "contains the other" in refused("preprocess", *arguments, "--to-pickle", pickles)
    assert not (tmp_path / "d").exists()


def digest(path: Path) -> str:
    return hashlib.sha256(json.dumps(load(path)).encode()).hexdigest()


# SHA-256 of json.dumps of the authors' train.txt, test.txt and all_train_seq.txt for real excerpts of the two logs.
AUTHORS = {
    ("diginetica", "diginetica-sample/sample_train-item-views.csv", "1"): (
        "45dbebd19dc7014d2cccadf9c7186f510384c1d53d201c974d198e2647840155",
        "442394bf08eb249c7760415bcd10335aa37dea864cb71610e5545fbdfb06b3a1",
        "387870b581fc57ea41371a4df92743cc3002aa8ed205e90f6e810426f5b4ec4e",
    ),
    ("yoochoose", "yoochoose-100k/yoochoose-clicks.dat", "1/4"): (
        "ee19a07df9e8582aa15a54340189863ebc4e9f249ef8f4389871e80509cc50c4",
        "900e92c074ad379568c5ffad71e56ab9e6029e3f80bf067871821a48fe56d6c4",
        "973f12dcada662ccb925f2440abea34a035f119e999fbc26040e44c722a22ef9",
    ),
    ("yoochoose", "yoochoose-100k", "1/64"): (
        "eacfcb85274fc4dbf7b612717298e0c2711d8a830175d9d8103aa6987452e961",
        "900e92c074ad379568c5ffad71e56ab9e6029e3f80bf067871821a48fe56d6c4",
        "70441e52d9a042b9ff005677b1d8e41b8de0d14adde52ea4c89365cc805d4eb1",
    ),
}


@pytest.mark.parametrize("case", AUTHORS)
def test_the_authors_pickles(run_command, shared, tmp_path, case):
    kind, raw, fraction = case
    arguments = [kind, "--raw", shared / "data" / "raw" / raw, "--fraction", fraction]
    process = run_command("preprocess", *arguments, "--out", tmp_path / "d", "--to-pickle", tmp_path / "p")
    assert process.returncode == 0, process.stderr
    assert tuple(digest(tmp_path / "p" / f"{n}.txt") for n in ("train", "test", "all_train_seq")) == AUTHORS[case]

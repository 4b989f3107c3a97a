"""Sessions in memory and on disk: samples, the split by time, the processed layout and what is wrong with it."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest

from paddle_srgnn.datasets.load import load_dataset
from paddle_srgnn.datasets.sessions import SessionDataset, Sessions, open_dataset, verify_dataset, write_dataset
from paddle_srgnn.errors import InputError


def make(*sessions: list[int], dates: bool = True, first_samples: int | None = None) -> Sessions:
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, sessions)])
    return Sessions(items, offsets, np.arange(len(sessions)) * 10 if dates else None, first_samples)


def make_dataset(**changes) -> SessionDataset:
    dataset = SessionDataset(
        name="tiny",
        train=make([1, 2, 3], [2, 4], [3, 1, 1], first_samples=1),
        test=make([4, 4], [1, 2, 3]),
        item_ids=["", "007", 'a, "b"', "line\nbreak", "ü"],
        item_clicks=np.array([0, 3, 2, 2, 1]),
        meta={"source": "by hand", "protocol": "sessions", "parameters": {"test_days": 7.0}},
    )
    return dataclasses.replace(dataset, **changes)


@pytest.fixture
def folder(tmp_path):
    write_dataset(make_dataset(), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_samples_by_hand():
    sessions = make([5, 6, 7, 8], [9, 5], [6, 6, 6])
    assert len(sessions) == 3 and sessions.n_samples == 6
    assert sessions.lengths.tolist() == [4, 2, 3]
    positions = sessions.sample_positions()
    assert positions.dtype == np.int64 and positions.tolist() == [1, 2, 3, 5, 7, 8]
    assert sessions.sample_starts(positions).tolist() == [0, 0, 0, 4, 6, 6]
    assert sessions.sample_starts(np.array([8, 1, 5])).tolist() == [6, 0, 4]  # in any order
    start, end = sessions.sample_starts(np.array([3]))[0], 3
    assert sessions.items[start:end].tolist() == [5, 6, 7] and sessions.items[end] == 8


def test_the_first_session_may_contribute_its_shortest_prefixes_only():
    sessions = make([5, 6, 7, 8], [9, 5], first_samples=2)
    assert sessions.sample_positions().tolist() == [1, 2, 5]
    assert sessions.n_samples == 3


@pytest.mark.parametrize("dates", [True, False])
def test_split_recent_by_hand(dates):
    sessions = make([1, 2, 3], [2, 4], [3, 1, 1], [4, 4], dates=dates, first_samples=1)
    older, recent = sessions.split_recent(0.25)
    assert older.items.tolist() == [1, 2, 3, 2, 4, 3, 1, 1] and older.offsets.tolist() == [0, 3, 5, 8]
    assert recent.items.tolist() == [4, 4] and recent.offsets.tolist() == [0, 2]
    assert (older.first_samples, recent.first_samples) == (1, None)
    assert older.n_samples + recent.n_samples == sessions.n_samples == 5
    assert np.shares_memory(older.items, sessions.items) and np.shares_memory(recent.items, sessions.items)
    if dates:
        assert older.dates.tolist() == [0, 10, 20] and recent.dates.tolist() == [30]
    else:
        assert older.dates is recent.dates is None


@pytest.mark.parametrize("share", [0, 0.1, 0.9, 1, -1, 2])
def test_split_recent_refuses_an_empty_side(share):
    with pytest.raises(InputError, match="share"):
        make([1, 2], [3, 4], [5, 6]).split_recent(share)


def test_layout_and_round_trip(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        *("items.csv", "meta.json", "test_dates.npy", "test_items.npy", "test_offsets.npy"),
        *("train_dates.npy", "train_items.npy", "train_offsets.npy"),
    ]
    dataset, written = open_dataset(folder), make_dataset()
    verify_dataset(dataset)
    load_dataset(folder)
    for part in ("train", "test"):
        for kind, dtype in (("items", np.int32), ("offsets", np.int64), ("dates", np.int64)):
            array = getattr(getattr(dataset, part), kind)
            assert isinstance(array, np.memmap) and array.dtype == dtype
            assert array.tolist() == getattr(getattr(written, part), kind).tolist()
    assert (dataset.train.first_samples, dataset.test.first_samples) == (1, None)
    assert dataset.item_ids == written.item_ids
    assert dataset.item_clicks.tolist() == [0, 3, 2, 2, 1]
    assert dataset.name == "tiny" and dataset.n_items == 5 and dataset.path == folder
    assert (folder / "items.csv").read_text(encoding="utf-8").startswith("index,raw_id,training_clicks\n1,007,3\n")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert meta == dataset.meta
    assert meta["format"] == 1 and meta["n_items"] == 5 and meta["source"] == "by hand"
    assert meta["counts"] == {
        **{"train_sessions": 3, "train_clicks": 8, "train_samples": 4},
        **{"test_sessions": 2, "test_clicks": 5, "test_samples": 3},
    }


def test_the_hash_is_of_the_content(folder, tmp_path):
    dataset = make_dataset()
    assert open_dataset(folder).hash == dataset.hash
    assert make_dataset(name="other", meta={}).hash == dataset.hash
    others = [
        make_dataset(train=make([1, 2, 3], [2, 4], [3, 1, 1])),  # all samples of the first session
        make_dataset(train=make([1, 2, 3], [2, 4], [3, 1, 2], first_samples=1)),
        make_dataset(train=make([1, 2, 3], [2, 4, 3], [1, 1], first_samples=1)),
        make_dataset(item_ids=["", "7", "b", "c", "d"]),
    ]
    others.append(make_dataset(valid=make([1, 2])))
    assert len({dataset.hash, *(other.hash for other in others)}) == 6
    # What the first release of the format gave it: a run finds its dataset again.
    assert dataset.hash == "7457241f090a7fea71cb7fd93a42963d97d6e08b1ce8dea65e3c34a0932b64b7"
    write_dataset(open_dataset(folder), tmp_path / "again")
    assert open_dataset(tmp_path / "again").hash == dataset.hash


def test_without_dates(tmp_path):
    dataset = make_dataset(train=make([1, 2], [2, 4], dates=False), test=make([1, 2], dates=False))
    write_dataset(dataset, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*dates*"))
    assert open_dataset(tmp_path / "d").train.dates is None
    load_dataset(tmp_path / "d")


def test_an_existing_folder_is_replaced_only_on_demand(folder):
    with pytest.raises(InputError, match="exists already"):
        write_dataset(make_dataset(name="second"), folder)
    assert open_dataset(folder).name == "tiny"
    write_dataset(make_dataset(name="second"), folder, replace=True)
    assert open_dataset(folder).name == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", ["train_items.npy", "train_offsets.npy", "test_dates.npy", "items.csv"])
def test_a_flipped_byte_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_dataset(folder)


def test_an_altered_meta_is_found(folder):
    path = folder / "meta.json"
    path.write_text(path.read_text().replace('"first_samples": 1', '"first_samples": 2'))
    with pytest.raises(InputError, match=r"meta\.json was altered"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["train_items.npy", "test_offsets.npy", "items.csv"])
def test_truncated_and_missing_files_are_found_on_opening(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{name} has .* bytes"):
        open_dataset(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"format": 1', '"format": 2', "format version 2, this version reads 1"),
        ('"format": 1', '"fromat": 1', "not a dataset's meta.json"),
        ('"files"', '"flies"', "damaged"),
        ('"train_items.npy"', '"valid_dates.npy"', "missing"),
        ("{", "", "not a dataset's meta.json"),
        ('"n_items": 5', '"n_items": 6', "has 4 items, expected 5"),
    ],
)
def test_a_wrong_meta(folder, old, new, said):
    path = folder / "meta.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        open_dataset(folder)


@pytest.mark.parametrize("offsets", [[0, 3, 5, 9], [1, 3, 5, 8], [0, 5, 3, 8], [0, 4, 5, 8]])
def test_offsets_that_do_not_fit(folder, offsets):
    np.save(folder / "train_offsets.npy", np.array(offsets))
    with pytest.raises(InputError, match=r"train_offsets\.npy does not divide the 8 clicks"):
        open_dataset(folder)


def test_arrays_of_another_kind(folder):
    np.save(folder / "train_offsets.npy", np.array([0, 3, 5, 8], dtype=np.float64))
    with pytest.raises(InputError, match=r"train_offsets\.npy is float64"):
        open_dataset(folder)
    size = (folder / "train_items.npy").stat().st_size
    (folder / "train_items.npy").write_bytes(b"x" * size)
    with pytest.raises(InputError, match=r"train_items\.npy is not an array"):
        open_dataset(folder)


def npy_of(shape: str) -> bytes:
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header


def archive_of(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items.csv", b"index,raw_id,training_clicks\n1,a,%d\n" % 2**64, "is damaged (Python int too large"),
        ("items.csv", b"index,raw_id,training_clicks\n1,\xff,1\n", "is damaged ('utf-8' codec can't decode"),
        ("items.csv", b"index,raw_id,training_clicks\n1," + b"a" * 140_000 + b",1\n", "is damaged (field larger than"),
        ("items.csv", b"index,raw_id,training_clicks\n1," + b"a", "is damaged (not enough values"),
        ("train_items.npy", b"PK\3\4 not even a zip", "is not an array: the magic string is not correct"),
        ("train_items.npy", archive_of({"a": np.arange(3)}), "is not an array: the magic string is not correct"),
        ("train_items.npy", npy_of("(9223372036854775808,)"), "is not an array: "),
        ("train_items.npy", npy_of("(1000000000000,)"), "is not an array: "),
        ("train_items.npy", npy_of("(-1,)"), "is not an array: "),
        ("train_items.npy", npy_of("(((("), "is not an array: "),
        ("train_items.npy", b"\x93NUMPY", "is not an array: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_with_other_content_are_refused_in_one_line(folder, name, content, said):
    (folder / name).write_bytes(content)
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"][name]["bytes"] = len(content)
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError) as error:
        open_dataset(folder)
    text = str(error.value)
    assert text.startswith(f"{folder / name} {said}") and "\n" not in text and len(text) < len(str(folder)) + 350


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"train_items.npy"', '"/dev/zero"', "names the file '/dev/zero', no part of a dataset"),
        ('"train_items.npy"', '"../tiny/train_items.npy"', "no part of a dataset"),
        ('"first_samples": 1', '"first_samples": 3', "the first session cannot have first_samples samples"),
        ('"first_samples": 1', '"first_samples": "1"', "meta.json is damaged"),
        ('"format": 1', '"format": "' + "v" * 5_000 + '"', "has format version 'vvvv"),
        ('"n_items": 5', '"n_items": ' + "9" * 4_000, "has 4 items, expected 9999"),
        ('"sha256": ', '"sha257": ', "meta.json is damaged: KeyError('sha256')"),
        ('"bytes": ', '"bytes": ' + "9" * 4_000, "bytes, expected 9999"),
        ('"format": 1', '"format": ' + "9" * 5_000, "is not a dataset's meta.json: ValueError"),
        ('"format": 1', '"format": ' + "[" * 100_000, "is not a dataset's meta.json: RecursionError"),
    ],
    ids=lambda text: text[:30],
)
def test_a_hostile_meta(folder, old, new, said):
    path = folder / "meta.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as error:
        open_dataset(folder)
    assert said in str(error.value) and len(str(error.value)) < len(str(path)) + 350


@pytest.mark.parametrize("item", [0, 5])
def test_items_out_of_range(item):
    with pytest.raises(InputError, match=f"contain item {item}, expected 1 to 4"):
        verify_dataset(make_dataset(test=make([1, item])))


def test_no_dataset(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match=r"is not a dataset: it has no meta\.json; preprocess a log first"):
            open_dataset(path)


def test_a_copy_of_an_opened_dataset_has_a_hash_of_its_own(folder):
    dataset = open_dataset(folder)
    changed = dataclasses.replace(dataset, train=make([1, 2]))
    assert changed.hash == make_dataset(train=make([1, 2])).hash != dataset.hash
    assert dataclasses.replace(dataset, name="other").hash == dataset.hash

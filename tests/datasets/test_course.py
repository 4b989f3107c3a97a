"""The course's protocol on hand-worked users, its cuts, and the dataset on disk."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.datasets.clicks import read_csv, read_inter
from paddle_srgnn.datasets.course import (
    CSV_COLUMNS,
    build_users,
    evaluation_cuts,
    n_cuts,
    random_cuts,
)
from paddle_srgnn.datasets.load import load_dataset
from paddle_srgnn.datasets.sessions import Sessions, open_dataset, verify_dataset, write_dataset
from paddle_srgnn.errors import InputError


def users(*lengths: int) -> Sessions:
    """Users whose items are 1, 2, 3, ..."""
    items = np.concatenate([np.arange(1, length + 1) for length in lengths]).astype(np.int32)
    return Sessions(items, np.cumsum([0, *lengths]))


def log(tmp_path, rows: list[tuple]):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    return read_csv(path, CSV_COLUMNS)


def ten_users() -> list[tuple]:
    """User u has the items u, u+1, ..., u+4, one a second, written latest first and users in turns."""
    return [(f"u{u}", u + place, place) for place in range(4, -1, -1) for u in range(1, 11)]


def parts(dataset) -> dict[str, list[list[str]]]:
    """Each part's users as lists of raw ids."""
    return {
        name: [[dataset.item_ids[item] for item in items] for items in np.split(part.items, part.offsets[1:-1])]
        for name, part in dataset.parts.items()
    }


def test_users_by_hand(tmp_path):
    dataset = build_users(log(tmp_path, ten_users()), "ten", "by hand", seed=3)
    assert dataset.protocol == "course" and dataset.train.dates is None
    sizes = {name: len(part) for name, part in dataset.parts.items()}
    assert sizes == {"train": 8, "valid": 1, "test": 1}
    found = [user for part in parts(dataset).values() for user in part]
    expected = [[str(u + place) for place in range(5)] for u in range(1, 11)]
    assert sorted(found, key=lambda user: int(user[0])) == expected
    assert found != expected  # they were shuffled
    # Numbered in order of first appearance in the file, whose first row is item 5, then 6, ...; then item 4.
    assert dataset.item_ids[1:] == [*map(str, range(5, 15)), "4", "3", "2", "1"]
    counts = {raw: sum(user.count(raw) for user in parts(dataset)["train"]) for raw in dataset.item_ids[1:]}
    assert dataset.item_clicks.tolist() == [0, *counts.values()]
    assert dataset.meta["parameters"] == {"seed": 3, "dropped_users": 0}


def test_items_of_equal_time_stay_in_file_order_and_repeated_items_stay(tmp_path):
    rows = [(u, item, time) for u in range(10) for item, time in zip("cabbaa", (5, 5, 5, 5, 1, 5), strict=True)]
    dataset = build_users(log(tmp_path, rows), "ties", "by hand")
    assert all(user == ["a", "c", "a", "b", "b", "a"] for part in parts(dataset).values() for user in part)


def test_the_seed_decides_the_split_and_nothing_else(tmp_path):
    clicks = log(tmp_path, ten_users())
    one, again, other = (build_users(clicks, "ten", "by hand", seed=seed) for seed in (0, 0, 1))
    assert one.hash == again.hash != other.hash
    assert one.item_ids == other.item_ids
    assert sorted(itertools.chain(*parts(one).values())) == sorted(itertools.chain(*parts(other).values()))


@pytest.mark.parametrize(("n", "sizes"), [(6, [4, 1, 1]), (10, [8, 1, 1]), (19, [15, 2, 2]), (943, [754, 94, 95])])
def test_the_split_is_8_to_1_to_1_rounded_down(tmp_path, n, sizes):
    dataset = build_users(log(tmp_path, [(u, i, i) for u in range(n) for i in range(5)]), "n", "by hand")
    assert [len(part) for part in dataset.parts.values()] == sizes


def test_users_too_short_for_a_cut_are_dropped_and_counted_but_their_items_keep_their_numbers(tmp_path):
    rows = [("short", item, 0) for item in "wxyz"] + [("one", "v", 0)]
    dataset = build_users(log(tmp_path, rows + ten_users()), "ten", "by hand")
    assert dataset.meta["parameters"]["dropped_users"] == 2
    assert sum(map(len, dataset.parts.values())) == 10
    assert dataset.item_ids[1:6] == ["w", "x", "y", "z", "v"] and dataset.item_clicks[:6].tolist() == [0] * 6


def test_too_few_users_are_refused(tmp_path):
    rows = [(u, item, 0) for u in range(5) for item in range(5)] + [("short", 1, 0)]
    with pytest.raises(InputError, match="5 of 6 users have 5 items or more: too few to split 8:1:1"):
        build_users(log(tmp_path, rows), "few", "by hand")


def test_the_dataset_on_disk(tmp_path):
    written = build_users(log(tmp_path, ten_users()), "ten", "by hand")
    write_dataset(written, tmp_path / "d")
    dataset = open_dataset(tmp_path / "d")
    verify_dataset(dataset)
    assert dataset.protocol == "course" and dataset.hash == written.hash
    assert parts(dataset) == parts(written)
    meta = json.loads((tmp_path / "d" / "meta.json").read_text())
    assert meta["protocol"] == "course" and meta["counts"]["valid_sessions"] == 1
    path = tmp_path / "d" / "valid_items.npy"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"valid_items\.npy was altered"):
        load_dataset(tmp_path / "d")
    path.unlink()
    with pytest.raises(InputError, match=r"valid_items\.npy is missing"):
        open_dataset(tmp_path / "d")


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(0, 2**40), st.integers(1, 1000))
def test_cuts_leave_four_items_before_them_and_lie_in_the_users_own(lengths, seed, epoch):
    sessions = users(*lengths)
    positions = random_cuts(sessions, seed, epoch)
    targets = sessions.items[positions]  # of a user's items 1, 2, 3, ... the target k is the k-th, so k - 1 are before
    long = [length for length in lengths if length > 4]
    assert len(positions) == n_cuts(sessions) == len(long)
    assert all(5 <= target <= length for target, length in zip(targets.tolist(), long, strict=True))
    assert sessions.sample_starts(positions).tolist() == sessions.offsets[:-1][np.array(lengths) > 4].tolist()


def test_every_cut_is_drawn_equally_often():
    sessions = users(*[9] * 20_000)
    targets = sessions.items[random_cuts(sessions, 7, 1)]
    counts = np.bincount(targets, minlength=10)
    assert counts[:5].tolist() == [0] * 5
    # Five cuts of probability 1/5: 4,000 each, with a standard deviation of 57.
    assert np.abs(counts[5:] - 4000).max() < 5 * 57


def test_a_users_cut_depends_on_the_seed_the_epoch_and_its_place_alone():
    many, few = users(*[40] * 100), users(*[40] * 30)
    cuts = random_cuts(many, 1, 1)
    np.testing.assert_array_equal(cuts, random_cuts(many, 1, 1))
    np.testing.assert_array_equal(cuts[:30], random_cuts(few, 1, 1))  # not on how many others there are
    others = users(40, *[5, 11, 3] * 9, 40, 40)  # nor on what they are like
    assert random_cuts(others, 1, 1)[[0, -2, -1]].tolist() == [
        cuts[0],
        *(others.offsets[[28, 29]] + (cuts - many.offsets[:-1])[[28, 29]]),
    ]
    for seed, epoch in ((1, 2), (2, 1), (0, 1)):
        assert (random_cuts(many, seed, epoch) != cuts).mean() > 0.9  # 1/36 agree by chance


def test_evaluation_cuts_by_hand():
    # int(0.8 * length): 4 of 5, 4 of 6, 5 of 7, 8 of 10, 12 of 15
    sessions = users(5, 6, 7, 10, 15)
    assert (evaluation_cuts(sessions) - sessions.offsets[:-1]).tolist() == [4, 4, 5, 8, 12]


@given(st.integers(2, 5000))
def test_evaluation_cuts_leave_an_item_and_a_label(length):
    (cut,) = evaluation_cuts(users(length))
    assert cut == int(0.8 * length) and 1 <= cut < length


def test_movielens(shared):
    clicks = read_inter(shared / "data" / "raw" / "ml-100k.inter", {"session": "user_id"})
    dataset = build_users(clicks, "ml-100k", "inter")
    assert {name: len(part) for name, part in dataset.parts.items()} == {"train": 754, "valid": 94, "test": 95}
    assert dataset.n_items == 1683 and dataset.meta["parameters"]["dropped_users"] == 0
    assert sum(len(part.items) for part in dataset.parts.values()) == 100_000

"""The synthetic world: its distribution by formula and by frequency, its log, and what the protocol makes of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from paddle_srgnn.datasets.sessions import open_dataset, write_dataset
from paddle_srgnn.datasets.synthetic import FIRST_DAY, Knobs, World, sample_dataset, sample_world

SMALL = Knobs(sessions=60_000, items=40, kinds=3, brands=4)


@pytest.fixture(scope="module")
def small() -> World:
    return World(3, SMALL)


@pytest.fixture(scope="module")
def sample():
    return sample_dataset()


def test_probabilities_by_the_rules_one_by_one(small):
    """The same distribution, written as the rules read: one pair and one item at a time."""
    category, popularity = small.categories.tolist(), small.popularity.tolist()

    def popular_among(item: int, others: list[int]) -> float:
        return popularity[item] / sum(popularity[i] for i in others) if item in others else 0.0

    def probability(previous: int, current: int, item: int) -> float:
        of_kind = [i for i in range(40) if category[i] // 4 == category[current] // 4]
        of_previous = [i for i in range(40) if category[i] == category[previous]]
        alternates = 0.85 if category[previous] != category[current] else 0.0
        compares = alternates * popular_among(item, of_previous) + (1 - alternates) * popular_among(item, of_kind)
        return 0.82 * compares + 0.04 * popularity[item] + 0.06 * (item == current) + 0.08 * (item == previous)

    pairs = [(0, 0), (0, 1), (5, 39), (39, 5), (20, 21)]
    found = small.next_click_probabilities(*np.array(pairs).T)
    assert found == pytest.approx(np.array([[probability(*pair, item) for item in range(40)] for pair in pairs]))


def test_probabilities_sum_to_one(small):
    previous, current = np.divmod(np.arange(40 * 40), 40)
    assert small.next_click_probabilities(previous, current).sum(axis=1) == pytest.approx(1)
    assert np.bincount(small.categories, minlength=12).sum() == 40


def test_clicks_follow_the_probabilities(small):
    """Chi-square on the thirty most common contexts, the first click of a session (no previous one) on its own."""
    clicks, lengths = small.sessions()
    position = np.arange(len(clicks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    statistic, freedom = 0.0, 0
    for at, back in ((position == 1, 1), (position > 1, 2)):
        target = np.flatnonzero(at)
        context = clicks[target - back] * 40 + clicks[target - 1]
        for common in np.argsort(np.bincount(context, minlength=1600))[-30:]:
            observed = np.bincount(clicks[target[context == common]], minlength=40)
            pair = np.array([common // 40]), np.array([common % 40])
            expected = small.next_click_probabilities(*pair)[0] * observed.sum()
            large = expected >= 5  # the usual condition; the rest is one cell
            cells = [np.append(x[large], x[~large].sum()) for x in (observed, expected)]
            statistic += ((cells[0] - cells[1]) ** 2 / cells[1]).sum()
            freedom += large.sum()
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)  # mean and standard deviation of chi-square


def test_repeats_and_returns_are_as_frequent_as_predicted(small):
    """Over all clicks at once, which tells apart what no single context has the clicks to show."""
    clicks, lengths = small.sessions()
    position = np.arange(len(clicks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target = np.flatnonzero(position > 1)
    previous, current = np.divmod(np.arange(40 * 40), 40)
    table = small.next_click_probabilities(previous, current)  # (pairs, items)
    pair = clicks[target - 2] * 40 + clicks[target - 1]
    for back in (1, 2):
        predicted = table[pair, clicks[target - back]]
        happened = clicks[target] == clicks[target - back]
        assert abs((happened - predicted).sum()) < 4 * np.sqrt((predicted * (1 - predicted)).sum())


def test_first_clicks_follow_popularity(small):
    clicks, lengths = small.sessions()
    observed = np.bincount(clicks[np.cumsum(lengths) - lengths], minlength=40)
    expected = small.popularity * len(lengths)
    assert ((observed - expected) ** 2 / expected).sum() < 39 + 4 * np.sqrt(2 * 39)


def test_the_log_has_the_raw_layout(small):
    log = small.log()
    clicks, lengths = small.sessions()
    assert list(log) == ["sessionId", "userId", "itemId", "timeframe", "eventdate"]
    assert not log["timeframe"].is_monotonic_increasing and (log.groupby("sessionId")["timeframe"].min() == 0).all()
    assert (log.groupby("sessionId")["eventdate"].nunique() == 1).all()
    assert pd.to_datetime(log["eventdate"]).agg(["min", "max"]).tolist() == [
        pd.Timestamp(FIRST_DAY),
        pd.Timestamp(FIRST_DAY + 29),
    ]
    in_time = log.sort_values(["sessionId", "timeframe"])
    assert in_time["itemId"].tolist() == [small.item_ids[code] for code in clicks]
    assert in_time.groupby("sessionId").size().tolist() == lengths.tolist()


def test_the_same_seed_gives_the_same_log_and_another_seed_another(small):
    assert World(3, SMALL).log().equals(small.log())
    assert not World(4, SMALL).log().equals(small.log())


def test_the_same_seed_gives_the_same_sample(sample):
    assert sample_dataset().hash == sample.hash


def test_every_session_of_the_sample_is_one_of_the_world(sample):
    """Through the reader and the protocol: no item is so rare as to be removed, so sessions stay whole."""
    world = sample_world(sample)
    log = world.log().sort_values(["sessionId", "timeframe"])
    drawn = Counter()
    days = {"train": "2016-05-25", "test": "2016-05-26"}  # seven days before the last, 1 June, is for neither
    for (_, day), items in log.groupby(["sessionId", "eventdate"])["itemId"]:
        if len(items) > 1 and day != days["train"]:
            drawn["train" if day < days["train"] else "test", tuple(items)] += 1
    found = Counter()
    for part in ("train", "test"):
        sessions = getattr(sample, part)
        for start, end in zip(sessions.offsets, sessions.offsets[1:], strict=False):
            found[part, tuple(sample.item_ids[item] for item in sessions.items[start:end])] += 1
    assert sample.n_items == 1 + Knobs().items
    assert found == drawn


def test_the_sample_is_like_diginetica(sample):
    train = sample.train
    assert sample.name == "sample" and sample.meta["synthetic"]["seed"] == 0
    assert train.n_samples > 25_000 and sample.test.n_samples > 6_000
    assert np.percentile(train.lengths, [25, 50, 75]).tolist() == [2, 4, 6]
    assert 4.5 < train.lengths.mean() < 5.5 and 30 < train.lengths.max() <= 70
    targets = train.sample_positions()
    assert 0.05 < (train.items[targets] == train.items[targets - 1]).mean() < 0.15
    third = targets[targets - train.sample_starts(targets) > 1]
    assert (train.items[third] == train.items[third - 2]).mean() > 0.1
    clicks = np.sort(sample.item_clicks[1:])[::-1]
    assert 0.4 < clicks[: len(clicks) // 10].sum() / clicks.sum() < 0.5
    assert 0.1 < clicks[: len(clicks) // 100].sum() / clicks.sum() < 0.15


def test_the_world_of_a_sample_is_found_again_after_writing_it(tmp_path, sample, ring):
    write_dataset(sample, tmp_path / "sample")
    world = sample_world(open_dataset(tmp_path / "sample"))
    assert world.knobs == Knobs() and world.seed == 0
    assert world.popularity.tolist() == World(0).popularity.tolist()
    assert sample_world(ring) is None

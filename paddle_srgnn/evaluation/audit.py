"""An audit of the test: what a sample's ranks must not depend on, and which sessions training must not hold.

Published results have collapsed when the test set was shuffled, because the scores of a sample depended on the other
samples of its batch. The audit encodes each sample alone and compares that with other orders and batch sizes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..datasets.course import evaluation_cuts
from ..datasets.samples import SampleBatches
from ..datasets.sessions import SessionDataset, Sessions
from ..errors import WorkFailed
from ..protocols import protocol_of
from ..protocols.course import Course
from ..protocols.metrics import ranks
from ..run import Run
from .ranks import ModelScorer, count_ranks, nearest_items, progress_bar, session_vectors

SAMPLES = 2_000
ROUNDING = 1e-5  # of a sample's largest score, and of the largest element of the session vectors
SMALL_BATCH = 7


class Check(NamedTuple):
    """One check of an audit."""

    name: str
    passed: bool | None  # None: the data do not allow the check
    found: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """The checks of one run on `samples` test samples, which were drawn with `seed`."""

    name: str
    samples: int
    seed: int
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed is not False for check in self.checks)


def audit(
    what: Run | str | os.PathLike,
    data: SessionDataset | str | os.PathLike | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Audit:
    """Check that the ranks of test samples depend on their own clicks alone, and that training ends before the test.

    The ranks (under the course's protocol the lists) of each sample alone are compared with those in other orders and
    batch sizes, and the session vectors with those for other targets.

    Args:
        what: a run, its path or a checkpoint's path.
        data: as in `evaluate`.
        samples: how many test samples to rank; they come from randomly drawn sessions, with all samples of each.
        seed: of the draw, the shuffle and the other targets.

    Raises:
        InputError: no such run, or it does not fit the data.
        WorkFailed: a score is not finite: the model has diverged.
    """
    run = what if isinstance(what, Run) else Run(what)
    dataset = run.load_dataset(data)
    scorer, test = ModelScorer(run.model(), run.checkpoint().settings), dataset.test
    protocol = protocol_of(dataset)
    lists = protocol.cosine
    positions = _some_samples(test, evaluation_cuts(test) if lists else test.sample_positions(), samples, seed)
    orders = arrangements(len(positions), scorer.batch_size, seed)
    with progress_bar(f"audit of {run.name}", (len(orders) + 2) * len(positions)) as bar:
        try:
            checks = _order_checks(_Listed if lists else _Ranked, scorer, test, positions, orders, bar.update)
        except WorkFailed as error:
            raise WorkFailed(f"{run.find_checkpoint()}: {error}") from None
        checks.append(_target_check(scorer, test, positions, seed, bar.update))
    checks += date_checks(dataset.train, test, protocol.unit)
    return Audit(run.name, len(positions), seed, checks)


def arrangements(n: int, batch_size: int, seed: int) -> dict[str, tuple[np.ndarray, int]]:
    """Orders of n samples (n,), each with a batch size, by name; each is to agree with every sample alone."""
    order = np.arange(n)
    return {
        "in order": (order, batch_size),
        "shuffled": (np.random.default_rng(seed).permutation(n), batch_size),
        "reversed": (order[::-1], batch_size),
        f"in batches of {SMALL_BATCH}": (order, SMALL_BATCH),
        "in one batch": (order, n),
    }


def _some_samples(sessions: Sessions, positions: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """The samples of randomly drawn sessions in their order: neighbours stay neighbours, prefixes of one session."""
    _, session, counts = np.unique(sessions.sample_starts(positions), return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(len(counts))
    enough = max(1, int(np.searchsorted(np.cumsum(counts[drawn]), at_most, side="right")))
    return positions[np.isin(session, drawn[:enough])][:at_most]


class _Ranked(NamedTuple):
    """The ranks of samples in one arrangement, by the pass that evaluation makes."""

    vectors: np.ndarray  # (n, d)
    found: np.ndarray  # (n, 1)
    what = "ranks"

    @classmethod
    def of(cls, scorer: ModelScorer, sessions: Sessions, positions: np.ndarray, size: int, advance: Callable):
        vectors = np.empty((len(positions), scorer.model.output_items().shape[1]), dtype=np.float32)
        how = {"positions": positions, "vectors": vectors, "advance": advance}
        counts = count_ranks(scorer.model, sessions, size, scorer.max_session_length, **how)
        return cls(vectors, ranks(*counts)[:, None])

    def are_roundings(self, changed: np.ndarray, other, scorer: ModelScorer, targets: np.ndarray) -> np.ndarray:
        """Which of the samples at `changed` (c,) moved by no more ranks than items score as their target does."""
        items = scorer.model.output_items().numpy()
        near = []
        for sample in changed:
            scores = items[1:] @ self.vectors[sample]  # (V,)
            gap = np.abs(scores - scores[targets[sample] - 1])
            near.append(np.count_nonzero(gap <= ROUNDING * max(1.0, np.abs(scores).max())) - 1)
        return np.abs(self.found - other.found)[changed, 0] <= near


class _Listed(NamedTuple):
    """The lists of samples in one arrangement, under a protocol that ranks by cosine."""

    vectors: np.ndarray  # (n, d)
    found: np.ndarray  # (n, k)
    what = "lists"

    @classmethod
    def of(cls, scorer: ModelScorer, sessions: Sessions, positions: np.ndarray, size: int, advance: Callable):
        samples = SampleBatches(sessions, size, scorer.max_session_length, positions)
        vectors = session_vectors(scorer.model, samples, advance)
        return cls(vectors, nearest_items(vectors, scorer.model.item_emb.weight.numpy(), max(Course.ks)))

    def are_roundings(self, changed: np.ndarray, other, scorer: ModelScorer, targets: np.ndarray) -> np.ndarray:
        """In which of the lists at `changed` (c,) only items of the same cosine have changed places."""
        items = scorer.model.item_emb.weight.numpy()
        items = items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-30)
        close = []
        for sample in changed:
            vector = self.vectors[sample] / max(float(np.linalg.norm(self.vectors[sample])), 1e-30)
            gap = items[self.found[sample]] @ vector - items[other.found[sample]] @ vector
            close.append(np.abs(gap).max() <= ROUNDING)
        return np.array(close, dtype=bool)


def _order_checks(kind, scorer, sessions: Sessions, positions: np.ndarray, orders, advance: Callable) -> list[Check]:
    alone, checks = kind.of(scorer, sessions, positions, 1, advance), []
    targets = np.asarray(sessions.items)[positions]
    for name, (order, size) in orders.items():
        moved = kind.of(scorer, sessions, positions[order], size, advance)
        back = np.argsort(order)
        other = kind(moved.vectors[back], moved.found[back])
        changed = np.flatnonzero((other.found != alone.found).any(axis=1))
        rounded = int(np.sum(alone.are_roundings(changed, other, scorer, targets)))
        gap = _gap(other.vectors, alone.vectors)
        found = f"{kind.what} of {len(order) - len(changed):,} of {len(order):,} samples as alone"
        found += f", {rounded:,} differ by rounding" if rounded else ""
        found += f", {len(changed) - rounded:,} differ" if len(changed) > rounded else ""
        passed = rounded == len(changed) and gap <= ROUNDING
        checks.append(Check(name, passed, f"{found}; vectors differ by {gap:.1g}"))
    return checks


def _gap(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of vectors (n, d), relative to their largest element."""
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _target_check(scorer, sessions: Sessions, positions: np.ndarray, seed: int, advance: Callable) -> Check:
    """Whether the session vectors are the same where the targets are others and no click follows them."""
    starts = sessions.sample_starts(positions)
    lengths = positions + 1 - starts
    ends = np.cumsum(lengths)
    clicks = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    items, n = np.asarray(sessions.items)[clicks], scorer.n_items - 1
    shift = np.random.default_rng(seed).integers(1, max(n, 2), len(ends))
    items[ends - 1] = (items[ends - 1] - 1 + shift) % n + 1
    others = Sessions(items, np.concatenate([[0], ends]))
    vectors = [
        session_vectors(scorer.model, SampleBatches(part, scorer.batch_size, scorer.max_session_length, at), advance)
        for part, at in ((sessions, positions), (others, ends - 1))
    ]
    gap = _gap(vectors[1], vectors[0])
    same = int((vectors[0] == vectors[1]).all(axis=1).sum())
    found = f"vectors of {same:,} of {len(ends):,} samples are the same; they differ by {gap:.1g}"
    return Check("other targets", gap <= ROUNDING, found)


def date_checks(train: Sessions, test: Sessions, unit: str = "sessions") -> list[Check]:
    """Whether training ends before the test begins, and holds no test session's clicks at or after its date.

    Without dates neither can be checked, and the sessions with the same clicks are only counted.
    """
    keys = _session_keys(test)
    latest = dict.fromkeys(keys, None)  # the latest date of a training session with these clicks
    has_dates = train.dates is not None and test.dates is not None
    dates = train.dates.tolist() if has_dates else [0] * len(train)
    for key, date in zip(_session_keys(train), dates, strict=True):
        if key in latest:
            latest[key] = date if latest[key] is None else max(date, latest[key])
    twins = sum(latest[key] is not None for key in keys)
    shared = f"{twins:,} of {len(test):,} test {unit} have the clicks of training {unit}"
    before, copies = "training before the test", f"no copies of test {unit}"
    if not has_dates:
        return [Check(before, None, "no dates"), Check(copies, None, f"no dates; {shared}")]
    first = int(test.dates.min())
    late = int((train.dates >= first).sum())
    found = f"training ends {_utc(train.dates.max())}, the test begins {_utc(first)}"
    found += f"; {late:,} training {unit} are dated at or after that" if late else ""
    leaked = sum(
        latest[key] is not None and latest[key] >= date for key, date in zip(keys, test.dates.tolist(), strict=True)
    )
    return [Check(before, not late, found), Check(copies, not leaked, f"{shared}, {leaked:,} at or after their date")]


def _session_keys(sessions: Sessions) -> list[bytes]:
    items, offsets = np.ascontiguousarray(sessions.items, dtype=np.int32), sessions.offsets.tolist()
    return [items[start:end].tobytes() for start, end in pairwise(offsets)]


def _utc(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")  # unlike datetime, of any year

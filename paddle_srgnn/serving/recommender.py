"""Raw item ids in, ranked raw item ids out, from nothing but a run's folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np

from ..errors import InputError
from ..kernels import unit_rows
from ..model import SRGNN
from ..protocols import PROTOCOLS
from ..run import Run
from ..runtime import import_paddle
from .search import Exact, Excluded, Hnsw

paddle = import_paddle()
logger = logging.getLogger(__name__)

BATCH = 512  # sessions encoded at once
INDEXES = {"exact": Exact, "hnsw": Hnsw}
Id = str | int


@dataclass(frozen=True)
class Recommendation:
    """The answer for one session.

    Attributes:
        items: raw ids, best first.
        scores: the model's scores; for popular items their training clicks, for similar items the cosine.
        unknown: how many of the session's clicks are on items unknown to the run.
        fallback: "popular" if the session has no known item, so that the popular items are given; else None.
    """

    items: tuple[str, ...]
    scores: tuple[float, ...]
    unknown: int = 0
    fallback: str | None = None


class Recommender:
    """Recommends the next items of sessions, ranked as in evaluation.

    Unknown items are removed from a session before it is cut to its `max_session_length` most recent clicks.

    Args:
        model: the model, with its weights.
        item_ids: raw id of each item number; "" for the padding, number 0.
        item_clicks: (n_items,) training clicks of each item.
        max_session_length: how many of a session's most recent clicks are read.
        index: "exact", or "hnsw" for faiss's approximate search.
        cosine: whether to rank by cosine, as the course's protocol does, instead of by inner product.

    Raises:
        InputError: an unknown index, or faiss is not installed.
    """

    def __init__(
        self,
        model: SRGNN,
        item_ids: Sequence[str],
        item_clicks: np.ndarray,
        max_session_length: int,
        index: str = "exact",
        cosine: bool = False,
    ):
        if index not in INDEXES:
            raise InputError(f"unknown index {index!r}: expected one of {', '.join(INDEXES)}")
        self.model, self.cosine = model, cosine
        self.item_ids = np.array(item_ids, dtype=object)  # (n_items,)
        self.max_session_length = max_session_length
        self._number = {raw: number for number, raw in enumerate(item_ids) if number}
        self._by_clicks = np.argsort(-np.asarray(item_clicks)[1:], kind="stable") + 1  # ties by number
        self._clicks = item_clicks
        model.eval()
        with paddle.no_grad():
            table = unit_rows(model.item_emb.weight) if cosine else model.output_items()
            self._table = table[1:]  # (V, d), without the padding
        self._exact = Exact(self._table)
        self._index = self._exact if index == "exact" else Hnsw(self._table)

    @classmethod
    def load(cls, run: Run | str | os.PathLike, index: str = "exact") -> Recommender:
        """The recommender of a run's reported checkpoint, or of a checkpoint in a run's folder.

        The dataset of the run is not needed. A warning is logged if the training is unfinished.

        Raises:
            InputError: the checkpoint or items.csv is missing or damaged, or as `Recommender`.
        """
        run = run if isinstance(run, Run) else Run(run)
        item_ids, item_clicks = run.items()
        checkpoint = run.checkpoint()
        if left := unfinished(run):
            logger.warning("%s: %s", run.name, left)
        cosine = PROTOCOLS[checkpoint.dataset["protocol"]].cosine
        return cls(run.model(), item_ids, item_clicks, checkpoint.settings.max_session_length, index, cosine)

    def recommend(self, session: Sequence[Id], k: int = 20, **how) -> Recommendation:
        """The k best next items of one session, as `recommend_many` with the same arguments.

        The scores can differ from those of a batch by rounding (about 1e-6), so items that close can change places.

        Args:
            session: raw item ids, oldest first; an integer stands for its decimal digits. It may be empty.
        """
        return self.recommend_many([session], k, **how)[0]

    def recommend_many(
        self,
        sessions: Sequence[Sequence[Id]],
        k: int = 20,
        *,
        exclude: Iterable[Id] = (),
        exclude_seen: bool = False,
        strict: bool = False,
    ) -> list[Recommendation]:
        """The k best next items of each session.

        Args:
            sessions: each as `recommend` takes it.
            k: the number of items; a smaller catalogue gives all its items.
            exclude: raw ids that are never recommended; unknown ones are ignored.
            exclude_seen: leave out every item of the session, including those cut off by `max_session_length`.
            strict: refuse a session without a known item instead of recommending the popular items.

        Raises:
            InputError: k is below 1, a session is not a list of strings or integers, or `strict` refuses a session.
            WorkFailed: a score is not finite.
        """
        _check_k(k)
        banned = self._known(exclude)[0]
        found = list(map(self._known, sessions))
        if strict and (bad := [(n, unknown) for n, (clicks, unknown) in enumerate(found) if not len(clicks)]):
            raise InputError(f"session {bad[0][0]}: none of its {bad[0][1]} items is known to the run")
        return [
            result
            for first in range(0, len(found), BATCH)
            for result in self._batch(found[first : first + BATCH], k, exclude_seen, banned)
        ]

    def similar_items(self, item: Id, k: int = 20) -> Recommendation:
        """The k items whose vectors have the highest cosine with an item's vector, best first, except the item itself.

        Raises:
            InputError: the item is unknown, or k below 1.
        """
        _check_k(k)
        number = self._number.get(_raw_id(item))
        if number is None:
            raise InputError(f"item {item!r} is not known to the run")
        itself = Excluded(np.zeros(1, dtype=np.int64), np.array([number - 1]))
        with paddle.no_grad():
            columns, values = Exact(self._directions).search(self._directions[number - 1 : number], k, itself)
        return Recommendation(*self._answer(columns[0], values[0]))

    def recall(self, sessions: Sequence[Sequence[Id]], k: int, exclude_seen: bool = False) -> tuple[int, int]:
        """How many items of the sessions' exact top k the index finds, and how many there are."""
        clicks = [known for known, _ in map(self._known, sessions) if len(known)]
        hits = total = 0
        for first in range(0, len(clicks), BATCH):
            user_emb, excluded = self._encode(clicks[first : first + BATCH], exclude_seen, self._known(())[0])
            answers = [index.search(user_emb, k, excluded) for index in (self._exact, self._index)]
            exact, own = ([set(c[np.isfinite(v)]) for c, v in zip(*answer, strict=True)] for answer in answers)
            hits += sum(len(a & b) for a, b in zip(exact, own, strict=True))
            total += sum(map(len, exact))
        return hits, total

    @cached_property
    def _directions(self) -> paddle.Tensor:
        """The normalised item vectors (V, d); a zero vector stays zero."""
        with paddle.no_grad():
            return paddle.nn.functional.normalize(self._table, axis=1)

    def _known(self, session: Sequence[Id]) -> tuple[np.ndarray, int]:
        """The numbers of a session's known items, int64 (clicks,), and how many clicks are on unknown ones."""
        if isinstance(session, str) or not isinstance(session, Iterable):
            raise InputError(f"a session must be a list of item ids, found {session!r}")
        numbers = [self._number.get(_raw_id(item), 0) for item in session]
        clicks = np.array([number for number in numbers if number], dtype=np.int64)
        return clicks, len(numbers) - len(clicks)

    def _batch(
        self, found: list[tuple[np.ndarray, int]], k: int, exclude_seen: bool, banned: np.ndarray
    ) -> list[Recommendation]:
        """The recommendations for sessions as `_known` gives them."""
        known = [clicks for clicks, _ in found if len(clicks)]
        if known:
            user_emb, excluded = self._encode(known, exclude_seen, banned)
            answers = zip(*self._index.search(user_emb, k, excluded), strict=True)
        popular = self._by_clicks[~np.isin(self._by_clicks, banned)][:k]
        by_clicks = tuple(self.item_ids[popular]), tuple(self._clicks[popular].astype(float).tolist())
        return [
            Recommendation(*self._answer(*next(answers)), unknown)
            if len(clicks)
            else Recommendation(*by_clicks, unknown, "popular")
            for clicks, unknown in found
        ]

    def _encode(self, known: list[np.ndarray], exclude_seen: bool, banned: np.ndarray):
        """The session vectors (b, d) of the sessions, and the items excluded for each."""
        with paddle.no_grad():
            user_emb = self.model.encode_sessions(known, self.max_session_length)  # (b, d)
            user_emb = unit_rows(user_emb) if self.cosine else user_emb
        left_out = [np.concatenate([banned, clicks]) if exclude_seen else banned for clicks in known]
        rows = np.repeat(np.arange(len(known)), [len(items) for items in left_out])
        return user_emb, Excluded(rows, np.concatenate(left_out) - 1)

    def _answer(self, columns: np.ndarray, values: np.ndarray) -> tuple[tuple[str, ...], tuple[float, ...]]:
        left = np.isfinite(values)
        return tuple(self.item_ids[columns[left] + 1]), tuple(values[left].tolist())


def unfinished(run: Run) -> str | None:
    """What is left of a run's training, for messages; None if it is finished."""
    try:
        if run.is_finished:
            return None
        last = run.checkpoint("last")
    except InputError as error:  # the checkpoint to use may still be whole
        return f"the training may be unfinished ({error})"
    done, epoch = last.progress.step, last.progress.epoch
    return f"the training is unfinished: it was stopped at step {done:,}, in epoch {epoch} of {last.settings.epochs}"


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k must be at least 1, found {k}")


def _raw_id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, Integral)):
        raise InputError(f"item {value!r} is not a raw id: expected a string or a whole number")
    return str(value)

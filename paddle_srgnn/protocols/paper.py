"""The paper's protocol: every click except a session's first is a sample, and its item is ranked against all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..datasets.sessions import SessionDataset, Sessions
from ..errors import InputError
from .metrics import TIES, ranking_metrics, ranks

TOP = 20  # length of the lists that are kept


class Measured(NamedTuple):
    """The result of a pass over the samples."""

    metrics: dict[str, float]  # by name, such as "P@20", in percent
    ranks: np.ndarray | None = None  # (samples,) float64, from 1; None under a protocol without ranks
    top: np.ndarray | None = None  # (samples, k) int32, the best items of each sample, best first, if requested


class Paper:
    """Wu et al. (AAAI 2019), section 4, measured by P@K, MRR@K and NDCG@K of the next item."""

    name = "sessions"  # in meta.json
    unit = "sessions"
    samples = "samples"  # what the metrics are means of
    metrics = ("P", "MRR", "NDCG")
    ks = (5, 10, 20)
    ties = "mean"  # the default of tie_rules
    tie_rules = tuple(TIES)
    options = ("fraction", "test_days", "min_item_clicks", "to_pickle")  # of preprocessing
    columns: Mapping[str, str] = {}  # names of a CSV's columns that differ from session, item and time
    cosine = False  # lists are ordered by inner product; item 0 is never listed

    def metric(self, name: str) -> str:
        """The protocol's name for a monitored metric: with one relevant item per sample, recall@K is P@K.

        Raises:
            InputError: the protocol has no such metric.
        """
        kind, _, k = name.partition("@")
        return _known(self, f"{'P' if kind == 'recall' else kind}@{k}", name)

    def split(self, dataset: SessionDataset, share: float) -> tuple[Sessions, Sessions | None]:
        """The sessions to train on, and the most recent share of them for validation; None if the share is 0."""
        return dataset.train.split_recent(share) if share else (dataset.train, None)

    def n_samples(self, train: Sessions) -> int:
        """The number of samples of an epoch."""
        return train.n_samples

    def positions(self, train: Sessions, seed: int, epoch: int) -> np.ndarray:
        """The targets of an epoch's samples, positions in `train.items`, int64 (n_samples,)."""
        return train.sample_positions()

    def n_measured(self, sessions: Sessions) -> int:
        """The number of samples that the metrics of these sessions are means of."""
        return sessions.n_samples

    def describe(self, sessions: Sessions) -> str:
        return f"{len(sessions):,} sessions, {sessions.n_samples:,} samples"

    def measure(
        self,
        scorer,
        sessions: Sessions,
        ks: Sequence[int],
        ties: str = ties,
        keep_lists: bool = False,
        advance: Callable[[int], object] = lambda samples: None,
    ) -> Measured:
        """Rank the target of every sample against all items.

        Args:
            scorer: its `count(sessions, advance, top)` counts the items that score above and equal to each target.
            ks: the cut-offs.
            ties: the place of a target among equal scores, see `metrics.ranks`.
            keep_lists: whether to keep the best items of each sample.
            advance: called with the number of samples done.
        """
        top = np.empty((sessions.n_samples, min(TOP, scorer.n_items - 1)), dtype=np.int32) if keep_lists else None
        found = ranks(*scorer.count(sessions, advance, top), ties=ties)
        return Measured(ranking_metrics(found, sorted(set(ks))), found, top)


def _known(protocol, metric: str, asked: str) -> str:
    if metric.partition("@")[0] not in protocol.metrics:
        known = ", ".join(f"{kind}@K" for kind in protocol.metrics)
        raise InputError(f"monitor={asked}: protocol {protocol.name} measures {known}; monitor one of them")
    return metric

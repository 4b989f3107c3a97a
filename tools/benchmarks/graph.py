"""Building the graphs of a batch: ours, padded and packed, against the reference's `_get_slice`."""

from __future__ import annotations

import numpy as np

from .contender import in_both_runtimes, timed

REPEAT = 5
SIZES = ((100, 70), (512, 20), (512, 70), (4096, 50))
N_ITEMS = 43098
SIZE = {"embedding_dim": 4, "step": 1, "n_items": N_ITEMS}


def contenders(reference: str | None) -> list[tuple]:
    ours = [("ours, padded", "graph:padded", {}, True), ("ours, packed", "graph:packed", {}, True)]
    return ours + (in_both_runtimes("reference", "graph:padded", {"file": reference}) if reference else [])


def _rounds(build, repeat: int):
    """Measure `build(sessions, length)` on sessions of each size: a round is `repeat` calls after a warm-up call."""
    from paddle_srgnn.comparison import random_sessions

    def measure() -> dict[str, list[float]]:
        figures = {}
        for n_rows, length in SIZES:
            call = build(random_sessions(n_rows, length, N_ITEMS), length)
            figures |= timed(call, f"{n_rows} x {length}", repeat, warm_up=1)()
        return figures

    return measure


def padded(file: str | None = None):
    """The padded layout of our model or the reference in `file`, from a tensor to tensors."""
    import paddle

    from paddle_srgnn.comparison import load_reference
    from paddle_srgnn.graph import pad
    from paddle_srgnn.model import SRGNN

    model = (load_reference(file) if file else SRGNN)(dict(SIZE))

    def build(sessions: list[np.ndarray], length: int):
        rows = paddle.to_tensor(pad(sessions, length))
        return lambda: model._get_slice(rows)

    return _rounds(build, 1 if file else REPEAT)


def packed():
    """The packed layout that training builds, from the flat clicks of a batch to tensors."""
    import paddle

    from paddle_srgnn.graph import packed_graph

    def build(sessions: list[np.ndarray], length: int):
        clicks, lengths = np.concatenate(sessions), np.array([len(session) for session in sessions])
        return lambda: [paddle.to_tensor(array) for array in packed_graph(clicks, lengths)]

    return _rounds(build, REPEAT)

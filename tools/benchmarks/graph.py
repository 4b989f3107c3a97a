"""Building the graphs of a batch: ours, padded and packed, against the reference's `_get_slice`."""

from __future__ import annotations

import time

import numpy as np

REPEAT = 5
SIZES = ((100, 70), (512, 20), (512, 70), (4096, 50))
N_ITEMS = 43098
SIZE = {"embedding_dim": 4, "step": 1, "n_items": N_ITEMS}


def contenders(reference: str | None) -> list[tuple]:
    listed = [("ours, padded", "graph:ours_padded", {}, True), ("ours, packed", "graph:ours_packed", {}, True)]
    if reference:
        options = {"file": reference}
        listed += [
            ("reference, as installed", "graph:reference", options, False),
            ("reference, our runtime", "graph:reference", options, True),
        ]
    return listed


def _round(build, repeat: int):
    """Measure `build(sessions, length)` on sessions of every size: a round of `repeat` calls, after one to warm up."""
    from paddle_srgnn.comparison import random_sessions

    def measure() -> dict[str, list[float]]:
        figures = {}
        for n_rows, length in SIZES:
            work = build(random_sessions(n_rows, length, N_ITEMS), length)
            work()
            marks = [time.perf_counter()]
            for _ in range(repeat):
                work()
                marks.append(time.perf_counter())
            figures[f"{n_rows} x {length}"] = (1e3 * np.diff(marks)).tolist()
        return figures

    return measure


def _get_slice(model, repeat: int):
    """The padded layout, from a tensor to tensors."""
    import paddle

    from paddle_srgnn.graph import pad

    def build(sessions: list[np.ndarray], length: int):
        rows = paddle.to_tensor(pad(sessions, length))
        return lambda: model._get_slice(rows)

    return _round(build, repeat)


def ours_padded():
    from paddle_srgnn.model import SRGNN

    return _get_slice(SRGNN(SIZE), REPEAT)


def reference(file: str):
    from paddle_srgnn.comparison import load_reference

    return _get_slice(load_reference(file)(dict(SIZE)), 1)


def ours_packed():
    """The packed layout that training builds, from the flat clicks of a batch to tensors."""
    import paddle

    from paddle_srgnn.graph import packed_graph

    def build(sessions: list[np.ndarray], length: int):
        clicks, lengths = np.concatenate(sessions), np.array([len(session) for session in sessions])
        return lambda: [paddle.to_tensor(array) for array in packed_graph(clicks, lengths)]

    return _round(build, REPEAT)

"""Building the graphs of a batch: ours, padded and packed, against the reference's `_get_slice`."""

from __future__ import annotations

import numpy as np

from .workload import load_reference, padded, random_sessions, timed

SIZES = ((100, 70), (512, 20), (512, 70), (4096, 50))
N_ITEMS = 43098


def contenders(reference: str | None) -> list[tuple]:
    listed = [("ours, padded", "graph:ours_padded", {}, True), ("ours, packed", "graph:ours_packed", {}, True)]
    if reference:
        options = {"file": reference}
        listed += [
            ("reference, as installed", "graph:reference", options, False),
            ("reference, our runtime", "graph:reference", options, True),
        ]
    return listed


def _round(build_of_size, repeat: int):
    def measure() -> dict[str, list[float]]:
        return {f"{b} x {length}": timed(build_of_size(b, length), repeat) for b, length in SIZES}

    return measure


def ours_padded():
    """`_get_slice`, from a tensor to tensors."""
    import paddle

    from paddle_srgnn.model import SRGNN

    model = SRGNN({"embedding_dim": 4, "step": 1, "n_items": N_ITEMS})

    def build(n_rows: int, length: int):
        rows = paddle.to_tensor(padded(random_sessions(n_rows, length, N_ITEMS), length))
        return lambda: model._get_slice(rows)

    return _round(build, 5)


def ours_packed():
    """What training builds from the flat clicks of a batch, turned into tensors."""
    import paddle

    from paddle_srgnn.graph import packed_graph

    def build(n_rows: int, length: int):
        sessions = random_sessions(n_rows, length, N_ITEMS)
        clicks, lengths = np.concatenate(sessions), np.array([len(session) for session in sessions])
        return lambda: [paddle.to_tensor(array) for array in packed_graph(clicks, lengths)]

    return _round(build, 5)


def reference(file: str):
    import paddle

    model = load_reference(file)({"embedding_dim": 4, "step": 1, "n_items": N_ITEMS})

    def build(n_rows: int, length: int):
        rows = paddle.to_tensor(padded(random_sessions(n_rows, length, N_ITEMS), length))
        return lambda: model._get_slice(rows)

    return _round(build, 1)

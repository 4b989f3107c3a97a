"""Growth of a training step's time and memory with catalogue size, batch size, session length and dimension."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from paddle_srgnn.config import load_recipe
from paddle_srgnn.files import atomic_file

BASE = {"n_items": 40_000, "batch": 512, "length": 5, "dim": 100}
RANGES = {
    "n_items": (10_000, 30_000, 100_000, 300_000, 1_000_000),
    "batch": (64, 128, 256, 512, 1024),
    "length": (3, 6, 12, 24, 48),  # with a fixed number of clicks in a batch
    "dim": (25, 50, 100, 200, 400),
}
CLICKS = 4608  # in a batch, when the session length grows
STEPS = 5
TIMES = ("step", "batch + encoder")


def contenders() -> list[tuple[str, float, tuple]]:
    """Each point as (parameter, value, contender)."""
    listed = []
    for name, values in RANGES.items():
        for value in values:
            options = BASE | ({"batch": CLICKS // value} if name == "length" else {}) | {name: value}
            listed.append((name, value, (f"{name} {value}", "scale:step", options, True)))
    return listed


def outlier_contenders() -> list[tuple]:
    """512 short sessions, and the same with one of 70 clicks among them."""
    names = {"512 short sessions": {}, "one of 70 clicks among them": {"longest": 70}}
    return [(name, "scale:step", BASE | options, True) for name, options in names.items()]


def step(n_items: int, batch: int, length: int, dim: int, longest: int | None = None):
    """Train on sessions of `length` clicks; the first has `longest` clicks if that is given."""
    import paddle

    from paddle_srgnn.graph import PackedGraph, packed_graph
    from paddle_srgnn.model import SRGNN

    model = SRGNN(load_recipe("paper", {"embedding_dim": dim}).model_config(n_items))
    adam = paddle.optimizer.Adam(1e-3, parameters=model.parameters())
    rng = np.random.default_rng(0)
    lengths = np.full(batch, length)
    lengths[0] = longest or length

    def one() -> tuple[float, float]:
        clicks, target = rng.integers(1, n_items, lengths.sum()), paddle.to_tensor(rng.integers(1, n_items, batch))
        start = time.perf_counter()
        user_emb = model.encode(PackedGraph(*map(paddle.to_tensor, packed_graph(clicks, lengths))))
        encoded = time.perf_counter()
        # Detach the loss from the encoder, to time the encoder's backward pass separately.
        copy = user_emb.detach()
        copy.stop_gradient = False
        model.calculate_loss(copy, target).backward()
        scored = time.perf_counter()
        user_emb.backward(copy.grad)
        propagated = time.perf_counter()
        adam.step()
        adam.clear_grad(set_to_zero=False)
        return 1e3 * (time.perf_counter() - start), 1e3 * (encoded - start + propagated - scored)

    one()

    return lambda: dict(zip(TIMES, zip(*(one() for _ in range(STEPS)), strict=True), strict=True))


def exponent(values: list[float], times: list[float]) -> float:
    """The least-squares slope of log(time) over log(value)."""
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def plot(points: dict[str, list[dict]], path: Path) -> None:
    """Draw a log-log plot for each parameter."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(4 * len(points), 3.6), layout="tight")
    axes = figure.subplots(1, len(points), sharey=True)
    for axis, (name, rows) in zip(axes, points.items(), strict=True):
        values = [row["value"] for row in rows]
        for key, style in zip(TIMES, ("o-", "s--"), strict=True):
            times = [row[key]["median"] for row in rows]
            axis.loglog(values, times, style, label=f"{key}, exponent {exponent(values, times):.2f}")
        axis.set_xlabel({"length": f"session length, {CLICKS} clicks a batch"}.get(name, name))
        axis.set_xticks(values, [f"{value:g}" if value < 1e4 else f"{value:.0e}" for value in values], fontsize=8)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("ms")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")

"""How a training step's time and memory grow with the catalogue, the batch, the sessions' length and the width."""

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
    "length": (3, 6, 12, 24, 48),  # with as many clicks in a batch: fewer sessions
    "dim": (25, 50, 100, 200, 400),
}
CLICKS = 4608  # in a batch, where the length grows
STEPS = 5


def contenders() -> list[tuple[str, float, tuple]]:
    """(what grows, its value, the contender) for every point."""
    listed = []
    for name, values in RANGES.items():
        for value in values:
            options = BASE | {name: value}
            if name == "length":
                options["batch"] = CLICKS // value
            listed.append((name, value, (f"{name} {value}", "scale:step", options, True)))
    return listed


def outlier_contenders() -> list[tuple]:
    """512 short sessions, and the same with one of 70 clicks among them."""
    return [
        ("512 short sessions", "scale:step", BASE, True),
        ("one of 70 clicks among them", "scale:step", BASE | {"longest": 70}, True),
    ]


def step(n_items: int, batch: int, length: int, dim: int, longest: int | None = None):
    """Sessions of `length` clicks each, but for one of `longest`."""
    import paddle

    from paddle_srgnn.graph import PackedGraph, packed_graph
    from paddle_srgnn.model import SRGNN

    model = SRGNN(load_recipe("paper", {"embedding_dim": dim}).model_config(n_items))
    adam = paddle.optimizer.Adam(1e-3, parameters=model.parameters())
    rng = np.random.default_rng(0)
    lengths = np.full(batch, length)
    if longest:
        lengths[0] = longest

    def one() -> tuple[float, float]:
        clicks, target = rng.integers(1, n_items, lengths.sum()), paddle.to_tensor(rng.integers(1, n_items, batch))
        start = time.perf_counter()
        user_emb = model.encode(PackedGraph(*map(paddle.to_tensor, packed_graph(clicks, lengths))))
        encoded = time.perf_counter()
        # The encoder's backward alone: the loss sees a copy without its history.
        copy = user_emb.detach()
        copy.stop_gradient = False
        model.calculate_loss(copy, target).backward()
        scored = time.perf_counter()
        user_emb.backward(copy.grad)
        sent_back = time.perf_counter()
        adam.step()
        adam.clear_grad(set_to_zero=False)
        end = time.perf_counter()
        return 1e3 * (end - start), 1e3 * (encoded - start + sent_back - scored)

    one()

    def measure() -> dict[str, list[float]]:
        steps, encoders = zip(*(one() for _ in range(STEPS)), strict=True)
        return {"step": list(steps), "batch + encoder": list(encoders)}

    return measure


def exponent(values: list[float], times: list[float]) -> float:
    """The slope of time over value in a log-log plot, by least squares."""
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def plot(points: dict[str, list[dict]], path: Path) -> None:
    """A log-log plot for each of what grows."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(4 * len(points), 3.6), layout="tight")
    axes = figure.subplots(1, len(points), sharey=True)
    for axis, (name, rows) in zip(axes, points.items(), strict=True):
        values = [row["value"] for row in rows]
        for key, style in (("step", "o-"), ("batch + encoder", "s--")):
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

"""A picture of the item vectors, laid out by t-SNE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ..errors import InputError
from ..files import atomic_file

MOST = 5000  # items in the picture; t-SNE of more takes minutes
PERPLEXITY = 30  # roughly, the number of neighbours that t-SNE keeps close to an item
LABELLED, LONGEST = 36, 28  # items with a label, and characters of one


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """A deterministic t-SNE layout of vectors (n, d), n >= 4: (n, 2)."""
    layout = TSNE(init="pca", perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3), random_state=0)
    with threadpool_limits(1):  # sums over several threads round differently, and t-SNE amplifies that
        return layout.fit_transform(vectors)


def draw_items(
    vectors: np.ndarray, clicks: np.ndarray, title: str, path: Path, labels: Sequence[str] | None = None
) -> int:
    """Draw items as points coloured by their training clicks; the padding is left out.

    Args:
        vectors: float32 (n_items, d), the padding first.
        clicks: int64 (n_items,), training clicks of each item.
        path: of the PNG. Of more than 5,000 items the most clicked are drawn.
        labels: a text for each item (n_items), or ""; the most clicked items get theirs where there is room.

    Returns:
        How many items were drawn.

    Raises:
        InputError: there are fewer than four items, or a vector is not finite.
    """
    shown = 1 + np.argsort(-clicks[1:], kind="stable")[:MOST]
    if len(shown) < 4:
        raise InputError(f"{path}: a picture needs four items, {title} has {len(shown)}")
    if not np.isfinite(vectors[shown]).all():
        raise InputError(f"{path}: item vectors of {title} are not finite; there is nothing to draw")
    shown = shown[::-1]  # the most clicked last, on top
    points, colour = lay_out(vectors[shown]), np.log10(1 + clicks[shown])

    figure = Figure(figsize=(8, 7))
    axis = figure.subplots()
    drawn = axis.scatter(*points.T, c=colour, s=8, cmap="viridis", linewidths=0)
    bar = figure.colorbar(drawn, ax=axis, label="clicks in training")
    least, most = clicks[shown].min(), clicks[shown].max()
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000) if least <= tick <= most]
    bar.set_ticks(np.log10(1 + np.array(ticks)), labels=[f"{tick:,}" for tick in ticks])
    axis.set_title(title, parse_math=False)
    axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    if labels is not None:
        _label(axis, points[::-1][:LABELLED], [labels[item] for item in shown[::-1][:LABELLED]])
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return len(shown)


def _label(axis, points: np.ndarray, labels: Sequence[str]) -> None:
    """Write labels at points (n, 2), the first ones first; one that would cover an earlier one is left out."""
    taken = []
    for point, label in zip(points, labels, strict=True):
        short = label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"
        text = axis.annotate(short, point, xytext=(4, 3), textcoords="offset points", fontsize=7, parse_math=False)
        box = text.get_window_extent()
        if not short or any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)

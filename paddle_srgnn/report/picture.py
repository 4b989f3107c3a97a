"""A picture of the item vectors, laid out by t-SNE: what the course ends with."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ..errors import InputError
from ..files import atomic_file

matplotlib.use("Agg")  # draws without a window
import matplotlib.pyplot as plt

MOST = 5000  # items in the picture; t-SNE of more takes minutes
PERPLEXITY = 30  # about as many neighbours of an item does t-SNE keep near it


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """t-SNE of vectors (n, d), n >= 4, the same one every time: (n, 2)."""
    layout = TSNE(init="pca", perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3), random_state=0)
    with threadpool_limits(1):  # the sums of several threads round otherwise, and t-SNE makes much of it
        return layout.fit_transform(vectors)


def draw_items(vectors: np.ndarray, clicks: np.ndarray, title: str, path: Path) -> int:
    """Draw items as points coloured by how often they were clicked in training; the padding is left out.

    Args:
        vectors: float32 (n_items, d), the padding first.
        clicks: int64 (n_items,), training clicks of each item.
        path: of the PNG. Of more than 5,000 items the most clicked are drawn.

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

    figure, axis = plt.subplots(figsize=(8, 7))
    drawn = axis.scatter(*points.T, c=colour, s=8, cmap="viridis", linewidths=0)
    bar = figure.colorbar(drawn, ax=axis, label="clicks in training")
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000) if tick <= clicks[shown].max()]
    bar.set_ticks(np.log10(1 + np.array(ticks)), labels=[f"{tick:,}" for tick in ticks])
    axis.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    plt.close(figure)
    return len(shown)

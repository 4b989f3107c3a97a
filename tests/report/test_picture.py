"""The picture of the item vectors."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_srgnn.errors import InputError
from paddle_srgnn.report import picture


def clusters(n: int) -> np.ndarray:
    """Vectors around two points far apart, in turns."""
    rng = np.random.default_rng(0)
    centres = np.where(np.arange(n) % 2, 5.0, -5.0)[:, None]
    return (centres + rng.normal(size=(n, 8))).astype(np.float32)


def test_the_layout_keeps_clusters_apart_and_is_the_same_every_time():
    points = picture.lay_out(clusters(60))
    np.testing.assert_array_equal(points, picture.lay_out(clusters(60)))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(60, np.inf))
    nearest = distance.argmin(axis=1)
    assert (nearest % 2 == np.arange(60) % 2).all()


def test_it_draws_every_item_but_the_padding_and_of_many_the_most_clicked(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(picture, "lay_out", lambda vectors: drawn.append(vectors) or vectors[:, :2])
    vectors, clicks = clusters(31), np.arange(31)
    vectors[0] = np.nan
    assert picture.draw_items(vectors, clicks, "all", tmp_path / "all.png") == 30
    monkeypatch.setattr(picture, "MOST", 10)
    assert picture.draw_items(vectors, clicks, "some", tmp_path / "some.png") == 10
    np.testing.assert_array_equal(drawn[1], vectors[21:])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"all.png", "some.png"}


def test_labels_stand_at_the_most_clicked_and_do_not_overlap(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "lay_out", lambda vectors: np.array([[0.0, 0], [0, 0.001], [5, 5], [0, 0]]))
    written = []
    monkeypatch.setattr(picture.Figure, "savefig", lambda figure, path, **_: (
        written.extend(text.get_text() for text in figure.axes[0].texts), path.write_bytes(b"")))  # fmt: skip
    labels = ["", "first", "hidden", "$x^$", "y" * 40]
    picture.draw_items(clusters(5), np.array([0, 4, 2, 3, 1]), "$x", tmp_path / "p.png", labels)
    assert written == ["first", "$x^$"]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs four items, few has 3"):
        picture.draw_items(clusters(4), np.zeros(4, dtype=int), "few", tmp_path / "p.png")
    vectors = clusters(9)
    vectors[3, 2] = np.inf
    with pytest.raises(InputError, match="not finite"):
        picture.draw_items(vectors, np.zeros(9, dtype=int), "broken", tmp_path / "p.png")
    assert not list(tmp_path.iterdir())

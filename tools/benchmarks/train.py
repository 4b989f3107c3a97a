"""Training steps end to end: ours against the reference, RecBole's SRGNN, and the floor of three bare products."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.load import load_dataset

STEPS = 12  # in a round
SIZE = {"dim": 100, "learning_rate": 1e-3}


def contenders(data: str, reference: str | None, batch: int, length: int) -> list[tuple]:
    """`length` is the baselines', which pad to it; ours reads the recipe's 70 most recent clicks."""
    options = {"data": data, "batch": batch}
    listed = [
        ("ours", "train:ours", options, True),
        ("recipe beside the floor", "train:recipe_beside_the_floor", options, True),
    ]
    baselines = [("reference", "train:reference", options | {"length": length, "file": reference})] if reference else []
    if importlib.util.find_spec("recbole"):
        baselines.append(("RecBole", "train:recbole", options | {"length": length}))
    for name, make, its_options in baselines:
        listed.append((f"{name}, as installed", make, its_options, False))
        listed.append((f"{name}, our runtime", make, its_options, True))
    return listed


def _training(data: str, batch: int, **changes):
    from paddle_srgnn.training.loop import Training

    settings = load_recipe("paper", {"batch_size": batch, **changes})
    return Training(load_dataset(data), settings, Path(tempfile.gettempdir()))


def _batches(training):
    from paddle_srgnn.datasets.samples import SampleBatches, epoch_order, sample_batches

    settings, sessions = training.settings, training.train
    for epoch in itertools.count():
        positions = sessions.sample_positions()[epoch_order(sessions.n_samples, 0, epoch)]
        yield from sample_batches(SampleBatches(sessions, settings.batch_size, settings.max_session_length, positions))


def _rounds(step, warm_up: int = 3):
    """Measure STEPS steps a round, in milliseconds."""
    for _ in range(warm_up):
        step()

    def measure() -> dict[str, list[float]]:
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        return {"step": times}

    return measure


def ours(data: str, batch: int):
    """The recipe `paper`, but with Adam alone as the baselines have it, without L2."""
    from paddle_srgnn.training.loop import READ_LOSSES_EVERY

    training = _training(data, batch, weight_decay=0)
    batches = _batches(training)

    def step():
        training._step(next(batches))
        if len(training._unread) >= READ_LOSSES_EVERY:
            training._catch_up()

    return _rounds(step)


def recipe_beside_the_floor(data: str, batch: int):
    """Steps of `paper` as it is, L2 included, in parts, alternating with three products of their size.

    These are the floor: the scores, and the two products of their gradient.
    """
    import paddle

    from paddle_srgnn.kernels import add_l2

    training = _training(data, batch)
    batches, model, adam = _batches(training), training.model, training.adam
    n_items, d = training.dataset.n_items, training.settings.embedding_dim
    user, table = paddle.randn([batch, d]), paddle.randn([n_items, d])

    def step(marks):
        graph, target = next(batches)
        marks.append(time.perf_counter())
        user_emb = model.encode(graph, sparse_gradient=True)
        marks.append(time.perf_counter())
        loss = model.calculate_loss(user_emb, target)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        add_l2(model.parameters(), training.settings.weight_decay)
        adam.step()
        adam.clear_grad(set_to_zero=False)
        loss.item()
        marks.append(time.perf_counter())

    def floor(marks):
        scores = paddle.matmul(user, table, transpose_y=True)
        paddle.matmul(scores, table)
        paddle.matmul(scores, user, transpose_x=True)
        marks.append(time.perf_counter())

    parts = ("batch", "encoder forward", "scores + loss", "backward", "optimiser")

    def measure() -> dict[str, list[float]]:
        figures = {name: [] for name in ("step", "floor", *parts)}
        for _ in range(STEPS):
            marks = [time.perf_counter()]
            step(marks)
            for name, begin, end in zip(parts, marks[:-1], marks[1:], strict=True):
                figures[name].append(1e3 * (end - begin))
            figures["step"].append(1e3 * (marks[-1] - marks[0]))
            marks = [time.perf_counter()]
            floor(marks)
            figures["floor"].append(1e3 * (marks[1] - marks[0]))
        return figures

    measure()
    return measure


def _padded_batches(data: str, batch: int, length: int):
    from paddle_srgnn.comparison import padded_samples

    sessions = load_dataset(data).train
    rng = np.random.default_rng(0)
    while True:
        positions = rng.permutation(sessions.sample_positions())
        for first in range(0, len(positions) - batch + 1, batch):
            yield padded_samples(sessions, positions[first : first + batch], length, length)


def reference(data: str, batch: int, length: int, file: str):
    import paddle

    from paddle_srgnn.comparison import load_reference

    n_items = load_dataset(data).n_items
    model = load_reference(file)({"embedding_dim": SIZE["dim"], "step": 1, "n_items": n_items})
    adam = paddle.optimizer.Adam(SIZE["learning_rate"], parameters=model.parameters())
    batches = _padded_batches(data, batch, length)

    def step():
        rows, target = next(batches)
        loss = model(paddle.to_tensor(rows), None, paddle.to_tensor(target))["loss"]
        loss.backward()
        adam.step()
        adam.clear_grad()
        loss.item()

    return _rounds(step)


def recbole(data: str, batch: int, length: int):
    """RecBole's model with full softmax, on the tensors its own loader would give it."""
    import torch
    from recbole.model.sequential_recommender.srgnn import SRGNN

    class Items:
        def num(self, field):
            return load_dataset(data).n_items

    config = {
        "USER_ID_FIELD": "session_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
        "ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": length, "device": torch.device("cpu"),
        "embedding_size": SIZE["dim"], "step": 1, "loss_type": "CE",
    }  # fmt: skip
    model = SRGNN(config, Items())
    adam = torch.optim.Adam(model.parameters(), lr=SIZE["learning_rate"])
    batches = _padded_batches(data, batch, length)

    def step():
        rows, target = map(torch.from_numpy, next(batches))
        loss = model.calculate_loss({"item_id_list": rows, "item_length": (rows > 0).sum(dim=1), "item_id": target})
        adam.zero_grad()
        loss.backward()
        adam.step()
        loss.item()

    return _rounds(step)

"""Training steps end to end: ours against the reference, RecBole's SRGNN, and a floor of three matrix products."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.load import load_dataset

from .contender import in_both_runtimes, timed

STEPS = 12  # in a round
WARM_UP = 3
FLOOR = "recipe and floor"
SIZE = {"dim": 100, "learning_rate": 1e-3}


def contenders(data: str, reference: str | None, batch: int, length: int) -> list[tuple]:
    """The baselines pad to `length`. Ours reads the 70 most recent clicks, as in the recipe."""
    ours = {"data": data, "batch": batch}
    theirs = ours | {"length": length}
    listed = [("ours", "train:ours", ours, True), (FLOOR, "train:recipe_and_floor", ours, True)]
    if reference:
        listed += in_both_runtimes("reference", "train:reference", theirs | {"file": reference})
    if importlib.util.find_spec("recbole"):
        listed += in_both_runtimes("RecBole", "train:recbole", theirs)
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


def ours(data: str, batch: int):
    """The recipe `paper` without L2, like the baselines."""
    from paddle_srgnn.training.loop import READ_LOSSES_EVERY

    training = _training(data, batch, weight_decay=0)
    batches = _batches(training)

    def step():
        training._step(next(batches))
        if len(training._unread) >= READ_LOSSES_EVERY:
            training._catch_up()

    return timed(step, "step", STEPS, WARM_UP)


def recipe_and_floor(data: str, batch: int):
    """Steps of `paper`, L2 included, part by part, alternating with three matrix products of the same size.

    The products are a lower bound: the scores, and the two products of their gradient.
    """
    import paddle

    from paddle_srgnn.kernels import add_l2

    training = _training(data, batch)
    batches, model, adam = _batches(training), training.model, training.adam
    n_items, d = training.dataset.n_items, training.settings.embedding_dim
    user, table = paddle.randn([batch, d]), paddle.randn([n_items, d])

    def parts():
        """Do one step and the products; yield the name of each part when it is done."""
        graph, target = next(batches)
        yield "batch"
        user_emb = model.encode(graph, sparse_gradient=True)
        yield "encoder forward"
        loss = model.calculate_loss(user_emb, target)
        yield "scores + loss"
        loss.backward()
        yield "backward"
        add_l2(model.parameters(), training.settings.weight_decay)
        adam.step()
        adam.clear_grad(set_to_zero=False)
        loss.item()
        yield "optimiser"
        scores = paddle.matmul(user, table, transpose_y=True)
        paddle.matmul(scores, table)
        paddle.matmul(scores, user, transpose_x=True)
        yield "floor"

    def measure() -> dict[str, list[float]]:
        figures = collections.defaultdict(list)
        for _ in range(STEPS):
            start = last = time.perf_counter()
            for part in parts():
                now = time.perf_counter()
                figures[part].append(1e3 * (now - last))
                if part != "floor":
                    step_ms = 1e3 * (now - start)
                last = now
            figures["step"].append(step_ms)
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

    return timed(step, "step", STEPS, WARM_UP)


def recbole(data: str, batch: int, length: int):
    """RecBole's model with full softmax, on the tensors that its own loader would pass."""
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

    return timed(step, "step", STEPS, WARM_UP)

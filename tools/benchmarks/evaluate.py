"""A full ranking pass: ours against the reference's vectors, a matrix product, `topk(20)` and a membership test."""

from __future__ import annotations

from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.load import load_dataset

from .contender import timed

BATCH, DIM = 512, 100


def contenders(data: str, reference: str | None, length: int) -> list[tuple]:
    options = {"data": data, "file": reference, "length": length}
    baseline = [("reference, our runtime", "evaluate:reference", options, True)] if reference else []
    return [("ours", "evaluate:ours", {"data": data}, True), *baseline]


def ours(data: str):
    from paddle_srgnn.evaluation.ranks import count_ranks
    from paddle_srgnn.model import SRGNN

    dataset, settings = load_dataset(data), load_recipe("paper")
    model = SRGNN(settings.model_config(dataset.n_items))
    return timed(lambda: count_ranks(model, dataset.test, BATCH, settings.max_session_length), "pass")


def reference(data: str, file: str, length: int):
    import paddle

    from paddle_srgnn.comparison import load_reference, padded_samples

    dataset = load_dataset(data)
    positions = dataset.test.sample_positions()
    model = load_reference(file)({"embedding_dim": DIM, "step": 1, "n_items": dataset.n_items})
    model.eval()

    def run_pass():
        with paddle.no_grad():
            for first in range(0, len(positions), BATCH):
                rows, target = padded_samples(dataset.test, positions[first : first + BATCH], length, length)
                user_emb = model(paddle.to_tensor(rows), None, None, train=False)["user_emb"]
                scores = paddle.matmul(user_emb, model.output_items(), transpose_y=True)
                _, best = paddle.topk(scores, 20, axis=1)
                (best.numpy() == target[:, None]).any(axis=1).sum()  # the hits

    return timed(run_pass, "pass")

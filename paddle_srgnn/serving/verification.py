"""Compare an export with its checkpoint: session vectors, scores and lists on real sessions, and latency."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.sessions import Sessions
from ..errors import InputError, WorkFailed
from ..graph import pad
from ..kernels import unit_rows
from ..model import SRGNN
from ..protocols.metrics import top_k
from ..run import Run
from ..runtime import import_paddle

paddle = import_paddle()

Predict = Callable[[np.ndarray], list[np.ndarray]]  # takes item_seq (B, L) int64

TOLERANCE = 1e-5  # of the largest value: both sides are float32 and sum in different orders
CHECKED, TIMED, WARM_UP = 1000, 300, 30  # sessions
BATCH_SIZES = (1, 7, 64)


@dataclass(frozen=True)
class Trial:
    """Sessions to try an export on."""

    source: str  # where they come from
    checked: list[np.ndarray]  # (clicks,) int64 each, of all lengths, including one longer than the model reads
    timed: list[np.ndarray]  # (clicks,) int64 each, of typical lengths


def load_paddle(folder: Path, name: str) -> Predict:
    """Load a model into Paddle Inference, on one CPU thread."""
    config = paddle.inference.Config(str(folder / f"{name}.json"), str(folder / f"{name}.pdiparams"))
    config.disable_glog_info()
    config.disable_mkldnn()  # slower on products of one row
    config.set_cpu_math_library_num_threads(1)
    predictor = paddle.inference.create_predictor(config)
    entry = predictor.get_input_handle(predictor.get_input_names()[0])
    exits = [predictor.get_output_handle(output) for output in predictor.get_output_names()]

    def predict(item_seq: np.ndarray) -> list[np.ndarray]:
        entry.copy_from_cpu(item_seq)
        predictor.run()
        return [output.copy_to_cpu() for output in exits]

    return predict


def load_onnx(folder: Path, name: str) -> Predict:
    """Load a model into ONNX Runtime, on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    return lambda item_seq: session.run(None, {session.get_inputs()[0].name: item_seq})


class Original:
    """A checkpoint's session vectors and item table, computed as in training and evaluation.

    Args:
        model: the checkpoint's model.
        max_session_length: how many of a session's most recent clicks are read.
        cosine: whether scores are cosines; session and item vectors then have length 1.
    """

    def __init__(self, model: SRGNN, max_session_length: int, cosine: bool):
        self.model, self.max_session_length, self.cosine = model, max_session_length, cosine
        with paddle.no_grad():
            table = unit_rows(model.item_emb.weight) if cosine else model.output_items()
            self.table = table.numpy()[1:]  # (n_items-1, d)

    def encode(self, sessions: list[np.ndarray]) -> np.ndarray:
        """The session vectors (B, d)."""
        with paddle.no_grad():
            vectors = self.model.encode_sessions(sessions, self.max_session_length)
            return (unit_rows(vectors) if self.cosine else vectors).numpy()


def inner_product(original: Original, vectors: np.ndarray, k: int) -> Predict:
    """What an exact index does: the k vectors with the largest products with the checkpoint's session vectors."""

    def predict(item_seq: np.ndarray) -> list[np.ndarray]:
        sessions = [row[row != 0] for row in item_seq]
        columns, scores = top_k(original.encode(sessions) @ vectors.T, k)  # (B, k) each
        return [columns + 1, scores]

    return predict


def trial_sessions(run: Run) -> Trial:
    """Inputs from the test sessions of the run's dataset, or random sessions if it cannot be loaded."""
    longest = run.settings.max_session_length + 5
    try:
        dataset = run.load_dataset()
    except (InputError, OSError) as error:
        rng, n_items = np.random.default_rng(0), run.checkpoint().n_items
        lengths = 1 + np.arange(CHECKED) % longest
        # From half as many items as clicks, so that sessions return to their items.
        sessions = [rng.choice(rng.integers(1, n_items, 1 + length // 2), length) for length in lengths]
        return Trial(f"random sessions, as the run's dataset cannot be read ({error})", sessions, sessions[:TIMED])
    test, positions = dataset.test, dataset.test.sample_positions()
    # One input of every length, then a second of every length that has two, and so on.
    lengths = positions - test.sample_starts(positions)
    by_length = np.argsort(lengths, kind="stable")
    turn = np.arange(len(positions)) - np.searchsorted(lengths[by_length], lengths[by_length])
    checked = _inputs(test, positions[by_length[np.argsort(turn, kind="stable")[:CHECKED]]])
    checked.append(np.resize(test.items, longest).astype(np.int64))  # consecutive clicks of several sessions
    timed = _inputs(test, positions[:: max(1, len(positions) // TIMED)][:TIMED])
    return Trial(f"inputs from the test sessions of {dataset.name}", checked, timed)


def _inputs(sessions: Sessions, positions: np.ndarray) -> list[np.ndarray]:
    starts = sessions.sample_starts(positions)
    items = np.asarray(sessions.items)
    return [items[start:end].astype(np.int64) for start, end in zip(starts, positions, strict=True)]


def verify(original: Original, trial: Trial, rank: Predict, encode_exported: Predict | None = None) -> dict:
    """Compare an export with its checkpoint, in batches of several sizes and lengths.

    Args:
        original: the checkpoint.
        rank: gives item numbers (B, k) and scores (B, k), best first.
        encode_exported: gives session vectors (B, d); None for an export without them.

    Returns:
        What was compared, the largest differences, and how many lists equal the checkpoint's.

    Raises:
        WorkFailed: a difference is above TOLERANCE times the largest value, a list does not hold the best k items, or
            the checkpoint's own scores are not finite.
    """
    pairs = defaultdict(list)  # found and expected, of each batch
    rest, sizes = iter(trial.checked), itertools.cycle(BATCH_SIZES)
    while sessions := list(itertools.islice(rest, next(sizes))):
        item_seq = pad(sessions)
        vectors = original.encode(sessions)
        scores = vectors @ original.table.T  # (B, n_items-1)
        if not np.isfinite(scores).all():
            raise WorkFailed("the checkpoint's scores are not finite: the model has diverged; nothing was written")
        if encode_exported is not None:
            pairs["user_vectors"].append((encode_exported(item_seq)[0], vectors))
        numbers, listed_scores = rank(item_seq)
        ordered = np.sort(numbers, axis=1)
        if ordered.min() < 1 or ordered.max() >= original.model.n_items or not np.diff(ordered, axis=1).all():
            raise WorkFailed("the export lists an unknown item, or an item twice; nothing was written")
        k = numbers.shape[1]
        own_scores = np.take_along_axis(scores, numbers - 1, 1)  # (B, k), the checkpoint's, of the items listed
        pairs["scores"].append((listed_scores, own_scores))
        pairs["lists"].append((own_scores, top_k(scores, k)[1]))
    differences = {
        what: _difference(what, *map(np.concatenate, zip(*parts, strict=True))) for what, parts in pairs.items()
    }
    del differences["lists"]  # only checked: these are the scores again
    lengths = list(map(len, trial.checked))
    return {
        "on": trial.source,
        "sessions": len(lengths),
        "clicks": [min(lengths), max(lengths)],
        "batch_sizes": list(BATCH_SIZES),
        "differences": differences,
        "k": k,
        "identical_lists": sum(int((own == best).all(axis=1).sum()) for own, best in pairs["lists"]),
    }


def _difference(what: str, found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The largest difference, the largest value, and the difference that this allows."""
    largest, value = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    allowed = TOLERANCE * value
    if not largest <= allowed:  # also true of NaN
        subject = "lists hold items that are not the best; their scores" if what == "lists" else what
        message = f"the export does not match the checkpoint: {subject} differ by up to {largest:.2g}"
        raise WorkFailed(f"{message}, expected at most {allowed:.2g}; nothing was written")
    return {"largest": largest, "largest_value": value, "allowed": allowed}


def latency(rank: Predict, trial: Trial) -> dict:
    """The time to answer a single session, in ms: median and 99th percentile."""
    sessions = [session[None, :] for session in trial.timed]
    for session in sessions[:WARM_UP]:
        rank(session)
    times = []
    for session in sessions:
        start = time.perf_counter()
        rank(session)
        times.append((time.perf_counter() - start) * 1000)
    median, late = np.percentile(times, [50, 99]).round(2).tolist()
    return {"sessions": len(sessions), "threads": 1, "median_ms": median, "p99_ms": late}

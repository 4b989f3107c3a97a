"""An export against the checkpoint it was made of: session vectors, scores and lists on real sessions, and latency."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.sessions import Sessions
from ..errors import InputError, WorkFailed
from ..graph import pad
from ..kernels import unit_rows
from ..model import SRGNN
from ..run import Run
from ..runtime import import_paddle

paddle = import_paddle()

Predict = Callable[[np.ndarray], list[np.ndarray]]  # of item_seq (B, L) int64

TOLERANCE = 1e-5  # of the largest value: both sides are float32, each with its own order of summation
CHECKED, TIMED, WARM_UP = 1000, 300, 30  # sessions
BATCH_SIZES = (1, 7, 64)


@dataclass(frozen=True)
class Trial:
    """Sessions to try an export on.

    Attributes:
        source: where they are from.
        checked: (clicks,) int64 each, of all lengths, one longer than the model reads among them.
        timed: the same, of lengths as they occur.
    """

    source: str
    checked: list[np.ndarray]
    timed: list[np.ndarray]


def load_paddle(folder: Path, name: str) -> Predict:
    """A model that Paddle Inference reads, on one thread of the CPU."""
    config = paddle.inference.Config(str(folder / f"{name}.json"), str(folder / f"{name}.pdiparams"))
    config.disable_glog_info()
    config.disable_mkldnn()  # slower at the products of one row
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
    """A model that ONNX Runtime reads, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    return lambda item_seq: session.run(None, {session.get_inputs()[0].name: item_seq})


class Original:
    """The checkpoint's own way to session vectors and scores, which training and evaluation take.

    Args:
        model: the checkpoint's.
        max_session_length: how many of a session's most recent clicks are read.
        cosine: whether scores are cosines; both kinds of vectors then have length 1.
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
        scores = original.encode(sessions) @ vectors.T  # (B, n_items-1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        best = np.take_along_axis(best, order, 1)
        return [best + 1, np.take_along_axis(scores, best, 1)]

    return predict


def trial_sessions(run: Run) -> Trial:
    """Inputs from the test sessions of the run's dataset; where it cannot be loaded, random ones over its items."""
    longest = run.settings.max_session_length + 5
    try:
        dataset = run.load_dataset()
    except (InputError, OSError) as error:
        sessions = _random_sessions(run.checkpoint().n_items, longest)
        return Trial(f"random sessions, for the run's dataset cannot be read ({error})", sessions, sessions[:TIMED])
    checked = _one_of_each_length_first(dataset.test, CHECKED)
    checked.append(np.resize(dataset.test.items, longest).astype(np.int64))  # clicks of several sessions in a row
    every = max(1, dataset.test.n_samples // TIMED)
    timed = _inputs(dataset.test, dataset.test.sample_positions()[::every][:TIMED])
    return Trial(f"inputs from the test sessions of {dataset.name}", checked, timed)


def _one_of_each_length_first(sessions: Sessions, n: int) -> list[np.ndarray]:
    """At most n inputs: one of every length, then a second of every length that has two, and so on."""
    positions = sessions.sample_positions()
    lengths = positions - sessions.sample_starts(positions)
    by_length = np.argsort(lengths, kind="stable")
    first = np.searchsorted(lengths[by_length], lengths[by_length])  # where a sample's length begins
    turn = np.arange(len(positions)) - first
    return _inputs(sessions, positions[by_length[np.argsort(turn, kind="stable")[:n]]])


def _inputs(sessions: Sessions, positions: np.ndarray) -> list[np.ndarray]:
    starts = sessions.sample_starts(positions)
    items = np.asarray(sessions.items)
    return [items[start:end].astype(np.int64) for start, end in zip(starts, positions, strict=True)]


def _random_sessions(n_items: int, longest: int) -> list[np.ndarray]:
    """Sessions of every length up to `longest` that come back to their items often."""
    rng = np.random.default_rng(0)
    lengths = 1 + np.arange(CHECKED) % longest
    return [rng.choice(rng.integers(1, n_items, 1 + length // 2), length) for length in lengths]


def verify(original: Original, trial: Trial, rank: Predict, encode_exported: Predict | None = None) -> dict:
    """Compare an export with the model it was made of, in batches of several sizes and lengths.

    Args:
        original: what it was made of.
        rank: gives item numbers (B, k) and scores (B, k), the best first.
        encode_exported: gives session vectors (B, d); None for an export that has none.

    Returns:
        What was compared, the largest differences, and how many lists are the checkpoint's own.

    Raises:
        WorkFailed: a difference is above TOLERANCE times the largest value, a list is not the best k, or the
            checkpoint's own scores are not finite.
    """
    pairs = {"user_vectors": [], "scores": [], "lists": []}
    for sessions in _batches(trial.checked):
        item_seq = pad(sessions)
        vectors = original.encode(sessions)
        scores = vectors @ original.table.T  # (B, n_items-1)
        if not np.isfinite(scores).all():
            raise WorkFailed("the checkpoint's scores are not finite: the model has diverged; nothing was written")
        if encode_exported is not None:
            pairs["user_vectors"].append((encode_exported(item_seq)[0], vectors))
        numbers, listed_scores = rank(item_seq)
        if not _are_items(numbers, original.model.n_items):
            raise WorkFailed("the export lists an item twice, or none that there is; nothing was written")
        k = numbers.shape[1]
        own_scores = np.take_along_axis(scores, numbers - 1, 1)  # (B, k), the checkpoint's, of the items listed
        best = np.sort(np.partition(scores, -k, axis=1)[:, -k:], axis=1)[:, ::-1]  # (B, k), the checkpoint's best
        pairs["scores"].append((listed_scores, own_scores))
        pairs["lists"].append((own_scores, best))
    differences = {}
    for what, parts in pairs.items():
        if parts:
            differences[what] = _difference(what, *map(np.concatenate, zip(*parts, strict=True)))
    del differences["lists"]  # of the same scores as those listed, put in order
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


def _batches(sessions: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    rest, sizes = iter(sessions), itertools.cycle(BATCH_SIZES)
    while batch := list(itertools.islice(rest, next(sizes))):
        yield batch


def _are_items(numbers: np.ndarray, n_items: int) -> bool:
    ordered = np.sort(numbers, axis=1)
    return bool((ordered > 0).all() and (ordered < n_items).all() and (np.diff(ordered, axis=1) > 0).all())


def _difference(what: str, found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The largest difference and the largest value, the one checked against the other."""
    largest, value = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not largest <= TOLERANCE * value:  # also where one is not a number
        subject = "lists hold items that are not the best, by scores" if what == "lists" else f"{what} differ"
        raise WorkFailed(
            f"the export is not the checkpoint: {subject} by up to {largest:.2g}, "
            f"{TOLERANCE * value:.2g} is allowed; nothing was written"
        )
    return {"largest": largest, "largest_value": value, "allowed": TOLERANCE * value}


def latency(rank: Predict, trial: Trial) -> dict:
    """The time of one session alone, in ms: median and 99th percentile."""
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

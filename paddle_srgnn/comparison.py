"""Compare results and speed with another implementation of the reference's interface, on the same weights and batches.

Integers must be equal. Floats may differ by rounding errors. A session vector of the other implementation must not
depend on the rest of its batch or on the target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.machinery
import importlib.util
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from .datasets.sessions import SessionDataset, Sessions
from .errors import InputError, WorkFailed
from .evaluation.audit import arrangements
from .graph import pad
from .model import SRGNN
from .run import Run
from .runtime import import_paddle

paddle = import_paddle()

SIZES = {"embedding_dim": 32, "step": 2, "n_items": 500}  # of the model with random weights
GRAPH = ("alias_inputs", "A", "items", "mask")  # what `_get_slice` returns
STEPS, LEARNING_RATE = 10, 1e-3  # of Adam
ADAM_LOSSES = f"loss in {STEPS} Adam steps"
ALONE = "alone or "  # what the names of the order checks begin with
OTHER_TARGETS = "with other targets"
INTERFACE = "SRGNN(config), forward(item_seq, mask, item) and _get_slice(item_seq)"

# Relative to the largest entry of the reference's tensor, or to 1 if that is smaller.
TOLERANCES = dict.fromkeys(GRAPH, 0.0) | {"A": 1e-7, "user_emb": 2e-6, "loss": 2e-6, ADAM_LOSSES: 1e-4}
ORDER_TOLERANCE = 1e-5  # of the reference's session vectors against themselves, likewise
# Gradients: relative to the largest entry of each tensor, plus an absolute part for zero gradients. With trained
# weights and 43,000 items, the reference's float32 softmax alone differs from float64 by 1.5e-4, ours by 4e-6.
GRADIENT_TOLERANCE, SMALLEST_GRADIENT = 5e-4, 1e-7

Batches = Mapping[str, tuple[np.ndarray, np.ndarray]]  # item_seq (B, L) and target (B,), by name


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference in one quantity on one batch."""

    batch: str
    quantity: str  # one of TOLERANCES, "gradient of NAME", "alone or NAME" of `arrangements`, or OTHER_TARGETS
    largest: float  # absolute; infinite if the shapes differ
    allowed: float

    @property
    def passed(self) -> bool:
        return self.largest <= self.allowed  # False for NaN


@dataclasses.dataclass
class Comparison:
    """The result of `compare`."""

    differences: list[Difference] = dataclasses.field(default_factory=list)  # one for each quantity and batch
    errors: dict[str, str] = dataclasses.field(default_factory=dict)  # by batch, raised by the reference's code
    step_ms: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # medians by batch: ours, theirs

    @property
    def passed(self) -> bool:
        return not self.errors and all(difference.passed for difference in self.differences)


def load_reference(file: str) -> type:
    """Run a Python file and return the class named by FILE.py:CLASS (default: SRGNN).

    Raises:
        InputError: the file or class does not exist.
        WorkFailed: the file raises an error.
    """
    path, _, name = file.partition(":")
    name = name or "SRGNN"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    loader = importlib.machinery.SourceFileLoader("reference", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", loader))
    sys.modules["reference"] = module  # dataclasses and inspect look it up there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise WorkFailed(f"{path} cannot be run: {own_error(error, path)}") from error
    if not inspect.isclass(getattr(module, name, None)):
        raise InputError(f"{path} has no class {name}")
    return getattr(module, name)


def own_error(error: BaseException, file: str) -> str:
    """An error in one line: its type, its message, and the last line of the file in its traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" (line {lines[-1]} of {file})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def random_weights(sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict from U(-1/sqrt d, 1/sqrt d), with biases and the padding's row, so that every weight matters."""
    rng = np.random.default_rng(seed)
    bound = sizes["embedding_dim"] ** -0.5
    shapes = {name: tensor.shape for name, tensor in SRGNN(sizes).state_dict().items()}
    return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


def random_sessions(n_rows: int, length: int, n_items: int, seed: int = 0) -> list[np.ndarray]:
    """Sessions of 1 to `length` clicks; one click in five repeats an item of its session."""
    rng = np.random.default_rng(seed)
    sessions = []
    for n_clicks in rng.integers(1, length + 1, n_rows):
        clicks = rng.integers(1, n_items, n_clicks)
        back = rng.random(n_clicks) < 0.2
        clicks[back] = clicks[rng.integers(0, n_clicks, n_clicks)][back]
        sessions.append(clicks)
    return sessions


def random_batches(n_items: int, seed: int = 0) -> Batches:
    """Batches of random sessions by name, one per special case."""
    rng = np.random.default_rng(seed)
    rows = {
        "padded": pad(random_sessions(100, 20, n_items, seed), 20),
        "full rows": rng.integers(1, n_items, (32, 10)),
        "single clicks": rng.integers(1, n_items, (16, 1)),
        "single clicks, padded": pad([rng.integers(1, n_items, 1) for _ in range(16)], 5),
        "self-loops and repeats": pad([rng.integers(1, 4, n) for n in rng.integers(1, 13, 32)], 12),
        "long": pad([rng.integers(1, n_items, 70), *random_sessions(15, 70, n_items, seed + 1)], 70),
        "one row": pad([rng.integers(1, n_items, 7)], 9),
    }
    return {name: (item_seq, rng.integers(1, n_items, len(item_seq))) for name, item_seq in rows.items()}


def real_batches(sessions: Sessions, max_session_length: int, seed: int = 0) -> Batches:
    """Three batches of up to 100 randomly drawn samples, padded to their longest input."""
    positions = np.random.default_rng(seed).permutation(sessions.sample_positions())[:300]
    return {
        f"samples {number}": padded_samples(sessions, drawn, max_session_length)
        for number, drawn in enumerate(np.array_split(positions, min(3, len(positions))), 1)
    }


def padded_samples(
    sessions: Sessions, positions: np.ndarray, max_session_length: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Padded inputs, int64 (B, length), and targets, int64 (B,), of the samples at `positions`."""
    starts = np.maximum(sessions.sample_starts(positions), positions - max_session_length)
    items = np.asarray(sessions.items)  # the same memory map, without its slower indexing
    inputs = [items[start:end] for start, end in zip(starts, positions, strict=True)]
    return pad(inputs, length), items[positions].astype(np.int64)


def of_run(run: Run, data: SessionDataset | str | None = None) -> tuple[dict[str, int], dict[str, np.ndarray], Batches]:
    """The arguments of `compare` for a run: its sizes and weights, and batches of test samples.

    Item 0 is scored as in the reference, even if it was not scored in training.

    Args:
        data: the dataset to take test samples from (default: the run's own).

    Raises:
        InputError: a setting of the run adds layers that the reference does not have, or the dataset does not fit.
    """
    checkpoint = run.checkpoint()
    settings = checkpoint.settings
    switches = settings.scoring_switches()
    switches.pop("score_item_zero", None)
    if switches:
        named = ", ".join(f"{key}={value}" for key, value in switches.items())
        raise InputError(f"{checkpoint.folder}: trained with {named}, which the reference does not have")
    sizes = {"embedding_dim": settings.embedding_dim, "step": settings.step, "n_items": checkpoint.n_items}
    weights = {name: tensor.numpy() for name, tensor in run.model().state_dict().items()}
    return sizes, weights, real_batches(run.load_dataset(data).test, settings.max_session_length)


def compare(
    reference: type, sizes: Mapping[str, int], weights: Mapping[str, np.ndarray], batches: Batches
) -> Comparison:
    """Run this package's SRGNN and another implementation with the same weights on the same batches.

    Args:
        reference: a class with the reference's interface.
        sizes: embedding_dim, step and n_items.
        weights: the state dict that both load before each batch.
        batches: item_seq (B, L) and target (B,) by name.

    Raises:
        InputError: the class does not have the interface.
        WorkFailed: its constructor fails, or its state dict has other keys or shapes.
    """
    _require_interface(reference)
    with _its_own_code(reference):
        theirs = reference(dict(sizes))
        shapes = {name: list(tensor.shape) for name, tensor in theirs.state_dict().items()}
    expected = {name: list(array.shape) for name, array in weights.items()}
    if shapes != expected:
        keys = sorted(key for key in shapes.keys() | expected.keys() if shapes.get(key) != expected.get(key))
        listed = "; ".join(f"{key}: found {shapes.get(key)}, expected {expected.get(key)}" for key in keys)
        raise WorkFailed(f"the reference's state dict has other keys or shapes: {listed}")
    found = Comparison()
    ours = SRGNN(sizes)
    for name, (item_seq, target) in batches.items():
        batch = paddle.to_tensor(item_seq), paddle.to_tensor(target)
        try:
            differences, found.step_ms[name] = _compare_on(ours, theirs, weights, batch, name)
            found.differences += differences
        except _ReferenceFailed as error:
            found.errors[name] = str(error)
    return found


class _ReferenceFailed(WorkFailed):
    """The reference's code raised an error."""


@contextlib.contextmanager
def _its_own_code(reference: type) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise _ReferenceFailed(f"the reference failed: {own_error(error, inspect.getfile(reference))}") from error


def _require_interface(reference: type) -> None:
    try:
        if not issubclass(reference, paddle.nn.Layer):
            raise TypeError("it is not a paddle.nn.Layer")
        inspect.signature(reference).bind("config")
        inspect.signature(reference.forward).bind("self", "item_seq", "mask", "item")
        inspect.signature(reference._get_slice).bind("self", "item_seq")
    except (TypeError, AttributeError) as error:
        name = getattr(reference, "__name__", reference)
        raise InputError(f"{name} does not have the reference's interface, {INTERFACE}: {error}") from None


def _compare_on(ours, theirs, weights: Mapping[str, np.ndarray], batch: tuple, name: str):
    """The differences on one batch, and the median milliseconds of a training step: ours, theirs."""
    with _its_own_code(type(theirs)):
        expected = _computed(theirs, weights, *batch)
        their_step = _training(theirs, weights, *batch)
    found = _computed(ours, weights, *batch)
    our_step = _training(ours, weights, *batch)
    steps = np.empty((STEPS, 2, 2))
    for step in steps:
        step[0] = our_step()
        with _its_own_code(type(theirs)):
            step[1] = their_step()
    found[ADAM_LOSSES], expected[ADAM_LOSSES] = steps[:, :, 0].T
    differences = [_difference(name, quantity, found[quantity], expected[quantity]) for quantity in found]
    with _its_own_code(type(theirs)):
        theirs.set_state_dict(weights)
        differences += _order_differences(theirs, *batch, name)
    return differences, tuple(np.median(steps[:, :, 1], axis=0).tolist())


def _computed(model, weights: Mapping[str, np.ndarray], item_seq, target) -> dict[str, np.ndarray]:
    """The tensors that an implementation computes on a batch, by quantity."""
    model.set_state_dict(weights)
    model.train()
    quantities = dict(zip(GRAPH, model._get_slice(item_seq), strict=True))
    output = model(item_seq, quantities["mask"], target)
    quantities |= {"user_emb": output["user_emb"], "loss": output["loss"]}
    output["loss"].backward()
    for name, parameter in model.named_parameters():
        # A parameter without a gradient is not trained, as if its gradient were zero.
        quantities[f"gradient of {name}"] = paddle.zeros_like(parameter) if parameter.grad is None else parameter.grad
    arrays = {quantity: np.array(tensor) for quantity, tensor in quantities.items()}
    model.clear_gradients()
    return arrays


def _training(model, weights: Mapping[str, np.ndarray], item_seq, target) -> Callable[[], tuple[float, float]]:
    """A function that takes one Adam step and returns the loss before it and the milliseconds it took."""
    model.set_state_dict(weights)
    adam = paddle.optimizer.Adam(LEARNING_RATE, parameters=model.parameters())

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        loss = model(item_seq, None, target)["loss"]
        loss.backward()
        adam.step()
        adam.clear_grad()
        return loss.item(), 1e3 * (time.perf_counter() - start)

    return step


def _order_differences(theirs, item_seq, target, batch: str) -> list[Difference]:
    """How far the reference's session vectors, in evaluation mode, depend on the batch and on the targets."""
    rows, targets = item_seq.numpy(), target.numpy()
    scoring = {"train": False} if "train" in inspect.signature(type(theirs).forward).parameters else {}

    def vectors(order: np.ndarray, size: int, targets: np.ndarray = targets) -> np.ndarray:
        """The vectors of the rows (B, d), computed in this order and `size` rows at once."""
        parts = [order[first : first + size] for first in range(0, len(order), size)]
        found = []
        for part in parts:
            own, next_items = paddle.to_tensor(rows[part]), paddle.to_tensor(targets[part])
            output = theirs(own, (own > 0).astype("int32"), next_items, **scoring)
            found.append(np.array(output["user_emb"]).reshape(len(part), -1))
        return np.concatenate(found)[np.argsort(order)]

    n, candidates = len(rows), len(theirs.state_dict()["item_emb.weight"]) - 1
    order, orders = np.arange(n), arrangements(n, max(1, 2 * n // 3), seed=0)
    theirs.eval()
    with paddle.no_grad():
        alone = vectors(order, 1)
        pairs = {f"{ALONE}{name}": (vectors(*how), alone) for name, how in orders.items()}
        pairs[OTHER_TARGETS] = vectors(order, n), vectors(order, n, targets % candidates + 1)
    theirs.train()
    allowed = ORDER_TOLERANCE * max(1.0, float(np.abs(alone).max(initial=0)))
    differences = []
    for name, (a, b) in pairs.items():
        gap = np.where(np.isnan(a) & np.isnan(b), 0, np.abs(a - b))
        differences.append(Difference(batch, name, float(gap.max(initial=0)), allowed))
    return differences


def _difference(batch: str, quantity: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    scale = float(np.abs(expected).max(initial=0))
    allowed = GRADIENT_TOLERANCE * scale + SMALLEST_GRADIENT
    if quantity in TOLERANCES:
        allowed = TOLERANCES[quantity] * max(1.0, scale)
    if found.shape != expected.shape:
        return Difference(batch, quantity, float("inf"), allowed)
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return Difference(batch, quantity, float(difference.max(initial=0)), allowed)

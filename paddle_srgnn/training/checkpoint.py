"""Checkpoints: safetensors and JSON, whole or absent, never unpickled; and the folder of a run around them.

    RUN/checkpoints/step-00001405/model.safetensors     the weights to use, under the reference's keys
                                  training.safetensors  the optimiser's state, under the parameters' names, and
                                                        the weights trained where those to use are their average
                                  state.json            progress, settings, dataset, hashes of the other two
    RUN/checkpoints/last, best                          one line naming the checkpoint folder

A folder is complete and on disk before a name points to it, so a reader never meets a half-written checkpoint.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import shutil
from pathlib import Path

import numpy as np

from ..interop.arrays import read_safetensors
from ..config import Settings, make_settings
from ..datasets.sessions import SessionDataset, read_items
from ..errors import InputError, WorkFailed
from ..files import atomic_file, atomic_folder, sha256
from ..model import SRGNN
from ..runtime import import_paddle

paddle = import_paddle()
logger = logging.getLogger(__name__)

FORMAT = 1
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
WEIGHT = "weight"  # beside the names of Adam's own state in TRAINING
UNKNOWN_DATASET = {"name": "unknown", "path": None, "hash": None}


@dataclasses.dataclass
class Progress:
    """Where a training stands: everything but the tensors that the next step depends on, and what has been measured."""

    epoch: int = 1  # the epoch under way, from 1
    steps_in_epoch: int = 0  # of them done
    step: int = 0  # steps done in all
    loss_sum: float = 0.0  # over the samples seen in this epoch
    seconds: float = 0.0  # spent training in this epoch
    history: list[dict] = dataclasses.field(default_factory=list)  # the rows of metrics.csv
    best_epoch: int = 0  # on validation
    best_value: float = -1.0


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's state.json, read and checked."""

    folder: Path
    settings: Settings
    n_items: int
    dataset: dict  # name, path and hash of what it was trained on; UNKNOWN_DATASET of imported weights
    progress: Progress


def save_checkpoint(
    run: Path,
    names: list[str],
    model: SRGNN,
    settings: Settings,
    dataset: dict,
    progress: Progress,
    trained: SRGNN | None = None,
    adam: paddle.optimizer.Adam | None = None,
) -> None:
    """Write a checkpoint and point `names` (last, best) of the run at it; checkpoints without a name are removed.

    Args:
        model: has the weights to use.
        trained, adam: what a training goes on from: the model whose weights Adam changes, the same one where none are
            averaged. Without them there is no training.safetensors.

    Raises:
        WorkFailed: a weight is not finite; the names stay where they were.
    """
    from safetensors.numpy import save_file

    weights = {name: parameter.numpy() for name, parameter in model.state_dict().items()}
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise WorkFailed(f"{name} is not finite after step {progress.step}; the last good checkpoint stays")
    folder = _free_folder(run / "checkpoints", progress.step)
    with atomic_folder(folder) as temporary:
        save_file(weights, temporary / MODEL)
        if adam is not None:
            save_file(_training_arrays(model, trained, adam), temporary / TRAINING)
        state = {
            "format": FORMAT,
            "settings": dataclasses.asdict(settings),
            "n_items": model.n_items,
            "dataset": dataset,
            "progress": dataclasses.asdict(progress),
            "files": {name: sha256(temporary / name) for name in (MODEL, TRAINING) if (temporary / name).exists()},
        }
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    for name in names:
        with atomic_file(run / "checkpoints" / name) as temporary:
            temporary.write_text(folder.name + "\n", encoding="utf-8")
    _remove_unnamed(run / "checkpoints")


def _free_folder(folder: Path, step: int) -> Path:
    """A new folder for a step's checkpoint: an earlier one must stay whole while a name points to it."""
    _remove_unnamed(folder)
    names = (f"step-{step:08d}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def _remove_unnamed(folder: Path) -> None:
    """Remove the checkpoints that no name points to."""
    names = [folder / name for name in ("last", "best")]
    kept = {name.read_text(encoding="utf-8").strip() for name in names if name.exists()}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path stands for: itself, or of a run `best` where validation chose it, else `last`.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if (path / STATE).is_file():
        return path
    for name in ("best", "last"):
        pointer = path / "checkpoints" / name
        if pointer.is_file():
            return _pointed(pointer)
    if not path.exists():
        raise InputError(f"{path}: no such run or checkpoint")
    raise InputError(f"{path}: no checkpoint here: expected {STATE}, or the folder of a run that has saved one")


def _pointed(pointer: Path) -> Path:
    folder = pointer.parent / pointer.read_text(encoding="utf-8", errors="replace").strip()
    if folder.parent != pointer.parent or not (folder / STATE).is_file():
        raise InputError(
            f"{pointer}: names {folder.name!r}, which is no checkpoint beside it; give a checkpoint's path"
        )
    return folder


def last_checkpoint(run: Path) -> Path | None:
    """The checkpoint that a run goes on from; None where it was stopped before its first.

    Raises:
        InputError: `last` names no checkpoint.
    """
    pointer = run / "checkpoints" / "last"
    return _pointed(pointer) if pointer.is_file() else None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's state and check its files against their hashes.

    Raises:
        InputError: a file is missing, truncated or altered, or of another format version.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        version = state["format"]
        if version != FORMAT:
            raise InputError(f"{path}: format version {version}, this release reads {FORMAT}")
        for name, digest in state["files"].items():
            if sha256(folder / name) != digest:
                raise InputError(f"{folder / name}: truncated or altered, its SHA-256 is not the one in {STATE}")
        settings, progress = make_settings(state["settings"], str(path)), Progress(**state["progress"])
        return Checkpoint(folder, settings, state["n_items"], state["dataset"], progress)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing, the checkpoint is not complete") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a checkpoint's state ({type(error).__name__}: {error})") from None


def load_model(checkpoint: Checkpoint) -> SRGNN:
    """The model with the weights to use."""
    model = SRGNN(checkpoint.settings.model_config(checkpoint.n_items))
    _set_weights(model, checkpoint.folder / MODEL)
    model.eval()
    return model


def own_data(checkpoint: Checkpoint) -> str:
    """What `--data` has to name for the dataset that a checkpoint was trained on.

    Raises:
        InputError: the weights were imported, and nobody knows their dataset.
    """
    if checkpoint.dataset["path"] is None:
        raise InputError(
            f"{checkpoint.folder}: imported weights, whose dataset is unknown; name with --data one that numbers its "
            f"{checkpoint.n_items - 1} items as they were numbered in training"
        )
    return checkpoint.dataset["path"]


def check_fits(checkpoint: Checkpoint, dataset: SessionDataset) -> None:
    """See that a checkpoint and a dataset number the same items alike.

    Of imported weights only the number of items is known; a warning says that their order is taken on trust.

    Raises:
        InputError: they do not; the message says where they part.
    """
    if checkpoint.dataset["hash"] == dataset.hash:
        return
    found = f"{checkpoint.folder}: of {checkpoint.dataset['name']}, does not fit {dataset.name}"
    if checkpoint.n_items != dataset.n_items:
        raise InputError(f"{found}: {checkpoint.n_items} items against {dataset.n_items}, padding included")
    if checkpoint.dataset == UNKNOWN_DATASET:
        logger.warning(
            "%s: imported weights, whose dataset is unknown; their items are taken to be numbered as in %s",
            checkpoint.folder, dataset.name,
        )  # fmt: skip
        return
    items = checkpoint.folder.parents[1] / "items.csv"
    if not items.is_file():
        raise InputError(f"{found}: the hashes differ, and without the run's items.csv the items cannot be compared")
    for number, (own, other) in enumerate(zip(read_items(items)[0], dataset.item_ids, strict=True)):
        if own != other:
            raise InputError(f"{found}: item {number} is {own!r} there and {other!r} here; preprocess the data alike")


def restore(checkpoint: Checkpoint, model: SRGNN, trained: SRGNN, adam: paddle.optimizer.Adam) -> None:
    """Put a checkpoint's weights and optimiser's state into what `save_checkpoint` took them from."""
    _set_weights(model, checkpoint.folder / MODEL)
    arrays = read_safetensors(checkpoint.folder / TRAINING)
    own = dict(trained.named_parameters())
    state = {}
    for key, array in arrays.items():
        name, _, kind = key.rpartition("/")
        if kind == WEIGHT:
            own[name].set_value(array)
        else:
            state[f"{own[name].name}_{kind}"] = paddle.to_tensor(array)
    adam.set_state_dict(state)


def _training_arrays(model: SRGNN, trained: SRGNN, adam: paddle.optimizer.Adam) -> dict[str, np.ndarray]:
    """Adam's state as "gnn.w_ih/moment1_0": Paddle's keys hold generated names, which no other process knows.

    And the weights as "gnn.w_ih/weight", where they are not the model's.
    """
    state, arrays = adam.state_dict(), {}
    for name, parameter in trained.named_parameters():
        for key, tensor in state.items():
            if key.startswith(parameter.name + "_"):
                arrays[f"{name}/{key[len(parameter.name) + 1 :]}"] = tensor.numpy()
        if trained is not model:
            arrays[f"{name}/{WEIGHT}"] = parameter.numpy()
    return arrays


def _set_weights(model: SRGNN, path: Path) -> None:
    arrays, expected = read_safetensors(path), model.state_dict()
    found = {key: list(array.shape) for key, array in arrays.items()}
    wanted = {key: list(tensor.shape) for key, tensor in expected.items()}
    if found != wanted:
        keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        differences = "; ".join(f"{key}: found {found.get(key)}, expected {wanted.get(key)}" for key in keys)
        raise InputError(f"{path}: does not fit its settings: {differences}")
    model.set_state_dict(arrays)

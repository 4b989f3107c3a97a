"""Checkpoints of a training: safetensors and JSON, whole or absent; `run` says what lies where.

A folder is complete and on disk before a name points to it, so a reader never meets a half-written checkpoint.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ..config import Settings
from ..errors import WorkFailed
from ..files import atomic_file, atomic_folder, read_safetensors, sha256
from ..model import SRGNN
from ..run import FORMAT, MODEL, STATE, TRAINING, Checkpoint, Progress
from ..runtime import import_paddle

paddle = import_paddle()

WEIGHT = "weight"  # beside the names of Adam's own state in TRAINING
NAME = re.compile(r"step-\d{8}(-\d+)?")  # of a checkpoint's folder


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
    """Remove the checkpoints that no name points to; other folders are somebody else's."""
    names = [folder / name for name in ("last", "best")]
    kept = {name.read_text(encoding="utf-8").strip() for name in names if name.exists()}
    for path in folder.iterdir():
        if path.is_dir() and NAME.fullmatch(path.name) and path.name not in kept:
            shutil.rmtree(path)


def restore(checkpoint: Checkpoint, model: SRGNN, trained: SRGNN, adam: paddle.optimizer.Adam) -> None:
    """Put a checkpoint's weights and optimiser's state into what `save_checkpoint` took them from."""
    model.load_weights(checkpoint.folder / MODEL)
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

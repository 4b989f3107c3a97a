"""Write and restore checkpoints, whose files `run` describes.

A folder is complete and on disk before a name points to it, so nobody reads a half-written checkpoint.
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
from ..run import FORMAT, MODEL, STATE, TRAINING, Checkpoint, Progress, read_pointer
from ..runtime import import_paddle

paddle = import_paddle()

WEIGHT = "weight"  # in TRAINING, besides the names of Adam's state
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
    """Write a checkpoint, point `names` (last, best) of the run to it, and remove checkpoints without a name.

    Args:
        model: the model with the weights to use.
        trained, adam: the optimizer and the model that it updates, which is `model` itself if weights are not averaged.
            Without them training.safetensors is not written.

    Raises:
        WorkFailed: a weight is not finite; the names do not change.
    """
    weights = {name: parameter.numpy() for name, parameter in model.state_dict().items()}
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise WorkFailed(f"{name} is not finite after step {progress.step}; the last good checkpoint is kept")
    _remove_unnamed(run / "checkpoints")
    # An earlier checkpoint of the same step must stay complete while a name points to it.
    folders = (f"step-{progress.step:08d}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
    folder = next(path for name in folders if not (path := run / "checkpoints" / name).exists())
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


def _remove_unnamed(folder: Path) -> None:
    """Remove the checkpoints that no name points to, and no other folder."""
    names = [folder / name for name in ("last", "best")]
    kept = {read_pointer(name) for name in names if name.is_file()}
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and NAME.fullmatch(path.name) and path.name not in kept:
            shutil.rmtree(path)


def restore(checkpoint: Checkpoint, model: SRGNN, trained: SRGNN, adam: paddle.optimizer.Adam) -> None:
    """Load the weights and the optimizer's state of a checkpoint that `save_checkpoint` wrote."""
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
    """Adam's state as "gnn.w_ih/moment1_0", and as "gnn.w_ih/weight" the weights if they are not the model's.

    Paddle's own keys contain generated names, which differ between processes.
    """
    state, arrays = adam.state_dict(), {}
    for name, parameter in trained.named_parameters():
        for key, tensor in state.items():
            if key.startswith(parameter.name + "_"):
                arrays[f"{name}/{key[len(parameter.name) + 1 :]}"] = tensor.numpy()
        if trained is not model:
            arrays[f"{name}/{WEIGHT}"] = parameter.numpy()
    return arrays

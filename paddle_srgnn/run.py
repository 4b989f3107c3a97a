"""A run: the folder of a training, with its settings, metrics, items and checkpoints.

    RUN/config.yaml, items.csv, metrics.csv, train.log, report.html
    RUN/checkpoints/step-00001405/model.safetensors     the weights to use, under the reference's keys
                                  training.safetensors  the optimizer's state, under the parameters' names, and
                                                        the trained weights if those to use are their average
                                  state.json            progress, settings, dataset, hashes of the other two
    RUN/checkpoints/last, best                          one line naming the checkpoint folder

Only loading a model needs Paddle. Reading a run never executes code from its files.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import logging
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import yaml

import paddle_srgnn  # for names that load on first use: pandas takes 0.4 s to import, Paddle 2 s

from .config import Settings, check_types, make_settings, read_yaml, shown
from .datasets.sessions import SessionDataset, read_items, write_items
from .errors import InputError
from .files import atomic_file, atomic_folder, sha256

logger = logging.getLogger(__name__)

FORMAT = 1
CONFIG, ITEMS, METRICS = "config.yaml", "items.csv", "metrics.csv"
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
UNKNOWN_DATASET = {"name": "unknown", "path": None, "hash": None, "protocol": "sessions"}
NUMBER = (int, float)
_CONFIG = {"recipe": str, "settings": dict, "dataset": dict, "environment": dict}
_DATASET = {"name": str, "path": (str, type(None)), "hash": (str, type(None)), "protocol": str}
_STATE = {"format": int, "settings": dict, "n_items": int, "dataset": dict, "progress": dict, "files": dict}
_PROGRESS = dict.fromkeys(("epoch", "steps_in_epoch", "step", "best_epoch"), int) | {"history": list}
_PROGRESS |= dict.fromkeys(("loss_sum", "seconds", "best_value"), NUMBER)
REMOVED = {"num_workers"}  # settings that older runs have; they never changed a result


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run's config.yaml."""

    recipe: str  # its name
    settings: Settings
    dataset: dict  # name, path ("sample" for the embedded one, None without a folder), hash and protocol
    environment: dict  # versions, device, threads, git revision


@dataclasses.dataclass
class Progress:
    """The progress of a training: what the next step depends on besides tensors, and what was measured."""

    epoch: int = 1  # the current epoch, from 1
    steps_in_epoch: int = 0  # completed in this epoch
    step: int = 0  # completed in all epochs
    loss_sum: float = 0.0  # over the samples of this epoch so far
    seconds: float = 0.0  # spent training in this epoch
    history: list[dict] = dataclasses.field(default_factory=list)  # the rows of metrics.csv
    best_epoch: int = 0  # on validation
    best_value: float = -1.0

    def is_finished(self, settings: Settings) -> bool:
        """Whether the last epoch is done, or validation has not improved for `patience` epochs."""
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch > settings.epochs or (bool(settings.patience) and waited >= settings.patience)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's state.json, read and checked."""

    folder: Path
    settings: Settings
    n_items: int
    dataset: dict  # as RunConfig.dataset; UNKNOWN_DATASET of imported weights
    progress: Progress


class Run:
    """A run's folder, or one checkpoint in it.

    Args:
        path: the folder of a run or of a checkpoint. A run stands for its reported checkpoint: the best on validation
            under early stopping, else the last.
        dataset: the training's dataset if it is in memory, so that it need not be loaded.

    Attributes:
        name: the path as given.
        folder: the folder of the run; for a checkpoint outside a run, the checkpoint's folder.

    Raises:
        InputError: the path does not exist.
    """

    def __init__(self, path: str | os.PathLike, dataset: SessionDataset | None = None):
        path, self._dataset = Path(path), dataset
        if not path.exists():
            raise InputError(f"{path}: no such run or checkpoint")
        self.name, self.folder, self._chosen = str(path), path, None
        if (path / STATE).is_file():
            self._chosen = path
            parents = path.resolve().parents
            self.folder = parents[1] if parents[0].name == "checkpoints" else path

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    @property
    def config(self) -> RunConfig | None:
        """The contents of config.yaml; None without one, as for a checkpoint copied out of its run."""
        return read_config(self.folder) if (self.folder / CONFIG).is_file() else None

    @property
    def recipe(self) -> str:
        """The recipe's name; "" if unknown."""
        return self.config.recipe if self.config else ""

    @property
    def settings(self) -> Settings:
        """All settings, of the run or of the chosen checkpoint."""
        return self.config.settings if self.config and self._chosen is None else self.checkpoint().settings

    @property
    def dataset(self) -> dict:
        """Name, path, hash and protocol of the dataset."""
        return self.config.dataset if self.config else self.checkpoint().dataset

    @property
    def environment(self) -> dict:
        """Versions, device, threads and git revision; empty if unknown."""
        return self.config.environment if self.config else {}

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row for each completed epoch, as in metrics.csv, without empty values.

        Raises:
            InputError: metrics.csv is damaged.
        """
        path = self.folder / METRICS
        if not path.is_file():
            return self.checkpoint().progress.history
        with open(path, encoding="utf-8", newline="") as file:
            try:
                rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
                return [row | {"epoch": int(row["epoch"])} for row in rows]
            except (TypeError, ValueError, KeyError, OverflowError, csv.Error) as error:
                raise InputError(f"{path}: damaged ({shown(error)}); expected a header and rows of numbers") from None

    @property
    def is_finished(self) -> bool:
        """Whether the training is complete. Imported weights, which cannot be resumed from, count as complete."""
        checkpoint = self.checkpoint("last")
        return checkpoint.dataset["hash"] is None or checkpoint.progress.is_finished(checkpoint.settings)

    @property
    def reported_epoch(self) -> int:
        """The epoch of the reported checkpoint, 0 before the first is complete."""
        return self.checkpoint().progress.epoch - 1

    def has_checkpoint(self, name: str) -> bool:
        """Whether the run has a file `last` or `best`."""
        return (self.folder / "checkpoints" / name).is_file()

    def find_checkpoint(self, name: str | None = None) -> Path:
        """The folder of the reported checkpoint, or of the one that `last` or `best` names.

        Raises:
            InputError: there is none.
        """
        names = [name] if name else [] if self._chosen else ["best", "last"]
        for pointer in (self.folder / "checkpoints" / name for name in names):
            if pointer.is_file():
                folder = pointer.parent / read_pointer(pointer)
                if folder.parent != pointer.parent or not (folder / STATE).is_file():
                    raise InputError(f"{pointer}: names {folder.name!r}, not a checkpoint here; name one by its path")
                return folder
        if self._chosen is not None:
            return self._chosen
        raise InputError(f"{self.folder}: no checkpoint here; expected {STATE}, or a run with a saved checkpoint")

    def checkpoint(self, name: str | None = None) -> Checkpoint:
        """The reported checkpoint, or the one that `last` or `best` names, as `read_checkpoint`.

        Raises:
            InputError: there is none, or as `read_checkpoint`.
        """
        return read_checkpoint(self.find_checkpoint(name))

    def items(self) -> tuple[list[str], np.ndarray]:
        """Raw id and training clicks of every item, padding first.

        Raises:
            InputError: the run has no items.csv, or it does not fit the checkpoint.
        """
        path, n_items = self.folder / ITEMS, self.checkpoint().n_items
        hint = "copy it from the dataset that the weights were trained on"
        if not path.is_file():
            raise InputError(f"{path}: missing (imported weights have none), so the items' raw ids are unknown; {hint}")
        item_ids, item_clicks = read_items(path)
        if len(item_ids) != n_items:
            raise InputError(f"{path}: {len(item_ids) - 1} items, the checkpoint has {n_items - 1}; {hint}")
        return item_ids, item_clicks

    def load_dataset(self, data: str | os.PathLike | SessionDataset | None = None) -> SessionDataset:
        """The dataset of the training, or another one that numbers the items as the run does.

        Args:
            data: a dataset, its folder or "sample"; None for the one the run was trained on.

        Raises:
            InputError: the dataset is unknown or damaged, or numbers its items differently.
        """
        checkpoint = self.checkpoint()
        own = checkpoint.dataset
        own_data = own["path"] if self._dataset is None else self._dataset
        data = own_data if data is None else data
        if data is None:
            raise InputError(
                f"{self.name}: trained on {own['name']} data without a folder; name a dataset that numbers its "
                f"{checkpoint.n_items - 1} items as in training"
            )
        dataset = data if isinstance(data, SessionDataset) else paddle_srgnn.load_dataset(data)
        if own["hash"] == dataset.hash:
            return dataset
        found = f"{checkpoint.folder}: trained on {own['name']}, does not fit {dataset.name}"
        if checkpoint.n_items != dataset.n_items:
            raise InputError(f"{found}: {checkpoint.n_items} items against {dataset.n_items}, padding included")
        if own["hash"] is None:
            assumption = "their items are assumed to be numbered as in"
            logger.warning("%s: imported weights, whose dataset is unknown; %s %s", self.name, assumption, dataset.name)
            return dataset
        if not (self.folder / ITEMS).is_file():
            raise InputError(f"{found}: the hashes differ, and without the run's {ITEMS} the items cannot be compared")
        for number, (mine, other) in enumerate(zip(self.items()[0], dataset.item_ids, strict=True)):
            if mine != other:
                raise InputError(f"{found}: item {number} is {mine!r}, in the data {other!r}; preprocess both alike")
        return dataset

    def model(self) -> paddle_srgnn.SRGNN:
        """The model with the weights of the reported checkpoint, in evaluation mode."""
        checkpoint = self.checkpoint()
        config = checkpoint.settings.model_config(checkpoint.n_items)
        return paddle_srgnn.SRGNN.from_file(config, checkpoint.folder / MODEL)

    def recommender(self, index: str = "exact") -> paddle_srgnn.Recommender:
        """As `Recommender.load`."""
        return paddle_srgnn.Recommender.load(self, index)


def read_pointer(path: Path) -> str:
    """What a file `last` or `best` names."""
    return path.read_bytes()[:80].decode("utf-8", errors="replace").strip()


def find_runs(path: Path) -> list[Path]:
    """The runs in a folder and its subfolders, by name, "a-2" before "a-10"; any other path is returned itself."""

    def is_run(folder: Path) -> bool:
        return (folder / CONFIG).is_file() or (folder / "checkpoints").is_dir()

    def by_number(folder: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]

    def in_order(folder: Path) -> list[Path]:
        return sorted((one for one in folder.iterdir() if one.is_dir() and one.name[0] != "."), key=by_number)

    if is_run(path) or not path.is_dir():
        return [path]
    found = [run for child in in_order(path) for run in ([child] if is_run(child) else filter(is_run, in_order(child)))]
    return found or [path]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's state and check its files against their hashes.

    Raises:
        InputError: a file is missing, truncated or altered, or of another format version.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing, the checkpoint is incomplete") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a checkpoint's state ({type(error).__name__}: {shown(error)})") from None
    version = state.get("format") if isinstance(state, dict) else None
    if version not in (None, FORMAT):
        raise InputError(f"{path}: format version {shown(version)}, expected {FORMAT}")
    state = check_types(state, _STATE, path)
    _check_hashes(folder, state["files"])
    settings = _stored_settings(state["settings"], path)
    dataset = check_types({"protocol": "sessions"} | state["dataset"], _DATASET, path)
    n_items, size = state["n_items"], (folder / MODEL).stat().st_size
    smallest = 4 * settings.embedding_dim * (n_items + settings.positions + 3 * settings.embedding_dim)
    if n_items < 1 or smallest > size:
        sizes = f"n_items={shown(n_items)}, embedding_dim={settings.embedding_dim}, positions={settings.positions}"
        raise InputError(f"{path}: {sizes}: does not fit {MODEL}, which has {size:,} bytes")
    return Checkpoint(folder, settings, n_items, dataset, _stored_progress(state["progress"], path))


def _check_hashes(folder: Path, files: dict[str, str]) -> None:
    """Check a checkpoint's arrays against the hashes in its state, which may name no other file."""
    if MODEL not in files or not files.keys() <= {MODEL, TRAINING}:
        raise InputError(f"{folder / STATE}: damaged, files: found {shown(list(files))}; expected {MODEL}, {TRAINING}")
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing or no file, the checkpoint is incomplete")
        if sha256(folder / name) != digest:
            raise InputError(f"{folder / name}: truncated or altered, its SHA-256 is not the one in {STATE}")


def _stored_progress(values: dict, path: Path) -> Progress:
    check_types(values, _PROGRESS, path)
    progress = Progress(**{key: values[key] for key in _PROGRESS})
    for key, value in vars(progress).items():
        if isinstance(value, int) and not 0 <= value < 2**53:
            raise InputError(f"{path}: damaged, {key}={shown(value)}: expected a count")
    for row in progress.history:
        check_types(row, dict.fromkeys({"epoch", "step", "loss", *row} if isinstance(row, dict) else (), NUMBER), path)
    done = progress.epoch - 1
    if not 0 <= progress.best_epoch <= done <= len(progress.history):
        rows = f"{done} epochs done, the best {progress.best_epoch}, {len(progress.history)} rows of history"
        raise InputError(f"{path}: damaged, found {rows}; expected a row for each epoch")
    return progress


def describe_dataset(dataset: SessionDataset) -> dict:
    """What a run and its checkpoints store about their dataset; `load_dataset` takes the path."""
    path = "sample" if dataset.is_sample else dataset.path and str(dataset.path.resolve())
    return {"name": dataset.name, "path": path, "hash": dataset.hash, "protocol": dataset.protocol}


def describe_environment(device: str, threads: int) -> dict:
    """What results may depend on besides the settings."""
    versions = {"python": platform.python_version()}
    for package in ("paddle-srgnn", "paddlepaddle", "paddlepaddle-gpu", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"versions": versions, "device": device, "threads": threads, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """The git revision of the checkout that this package runs from; None for an installed copy."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def create_run(folder: Path, config: RunConfig, dataset: SessionDataset) -> None:
    """Create a run's folder with config.yaml and the items; raises InputError if it exists."""
    with atomic_folder(folder) as temporary:
        write_config(temporary, config)
        write_items(temporary / ITEMS, dataset)


def write_config(folder: Path, config: RunConfig) -> None:
    """Write or replace a run's config.yaml."""
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(config.settings).items()}
    text = yaml.safe_dump(vars(config) | {"settings": settings}, sort_keys=False, allow_unicode=True)
    with atomic_file(folder / CONFIG) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_config(folder: Path) -> RunConfig:
    """Read a run's config.yaml.

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: not a run, it has no {CONFIG}")
    values = check_types(read_yaml(path), _CONFIG, path)
    dataset = check_types({"protocol": "sessions"} | values["dataset"], _DATASET, path)
    return RunConfig(values["recipe"], _stored_settings(values["settings"], path), dataset, values["environment"])


def _stored_settings(values: dict, path: Path) -> Settings:
    return make_settings({key: values[key] for key in values if key not in REMOVED}, str(path))

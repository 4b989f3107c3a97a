"""A run: the folder of a training, with its settings, metrics, items and checkpoints.

    RUN/config.yaml, items.csv, metrics.csv, train.log, report.html
    RUN/checkpoints/step-00001405/model.safetensors     the weights to use, under the reference's keys
                                  training.safetensors  the optimizer's state, under the parameters' names, and
                                                        the trained weights where those to use are their average
                                  state.json            progress, settings, dataset, hashes of the other two
    RUN/checkpoints/last, best                          one line naming the checkpoint folder

Nothing here needs Paddle until a model is asked for, and nothing in a file is run.
"""

from __future__ import annotations

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

import paddle_srgnn  # for what is loaded on first use: pandas takes 0.4 s to import, Paddle 2 s

from .config import Settings, make_settings
from .datasets.sessions import SessionDataset, read_items, write_items
from .errors import InputError
from .files import atomic_file, atomic_folder, sha256

logger = logging.getLogger(__name__)

FORMAT = 1
CONFIG, ITEMS, METRICS = "config.yaml", "items.csv", "metrics.csv"
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
UNKNOWN_DATASET = {"name": "unknown", "path": None, "hash": None, "protocol": "sessions"}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run's config.yaml.

    Attributes:
        recipe: the recipe's name.
        settings: everything applied.
        dataset: name, path ("sample" for the embedded one, None where there is no folder), hash and protocol.
        environment: versions, device, threads, git revision.
    """

    recipe: str
    settings: Settings
    dataset: dict
    environment: dict


@dataclasses.dataclass
class Progress:
    """Where a training stands: everything but the tensors that the next step depends on, and what was measured."""

    epoch: int = 1  # the epoch under way, from 1
    steps_in_epoch: int = 0  # of them done
    step: int = 0  # steps done in all
    loss_sum: float = 0.0  # over the samples seen in this epoch
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
        path: of the folder of a run, which stands for its reported checkpoint: validation's choice under early
            stopping, else the last. Or of a checkpoint.

    Attributes:
        name: the path as it was given.
        folder: the folder of the run; of a checkpoint outside any run the checkpoint's own.

    Raises:
        InputError: there is nothing at the path.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
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
        """What config.yaml says; None where there is none, as around a checkpoint that was copied elsewhere."""
        return read_config(self.folder) if (self.folder / CONFIG).is_file() else None

    @property
    def recipe(self) -> str:
        """The recipe's name; "" where it is unknown."""
        return self.config.recipe if self.config else ""

    @property
    def settings(self) -> Settings:
        """Everything applied."""
        return self.config.settings if self.config and self._chosen is None else self.checkpoint().settings

    @property
    def dataset(self) -> dict:
        """Name, path, hash and protocol of the dataset."""
        return self.config.dataset if self.config else self.checkpoint().dataset

    @property
    def environment(self) -> dict:
        """Versions, device, threads and git revision; empty where they are unknown."""
        return self.config.environment if self.config else {}

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row for each epoch done, as in metrics.csv, without what was not measured.

        Raises:
            InputError: metrics.csv is damaged.
        """
        path = self.folder / METRICS
        if not path.is_file():
            return self.checkpoint().progress.history
        with open(path, encoding="utf-8", newline="") as file:
            try:
                return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: damaged ({error}); expected numbers under names") from None

    @property
    def is_finished(self) -> bool:
        """Whether the training is done. Weights of another implementation, which cannot be trained on, are too."""
        checkpoint = self.checkpoint("last")
        return checkpoint.dataset["hash"] is None or checkpoint.progress.is_finished(checkpoint.settings)

    @property
    def reported_epoch(self) -> int:
        """The epoch of the reported checkpoint, 0 before the first is done."""
        return self.checkpoint().progress.epoch - 1

    def find_checkpoint(self, name: str | None = None) -> Path:
        """The folder of the reported checkpoint, or of the one that `last` or `best` names.

        Raises:
            InputError: there is none.
        """
        if self._chosen is not None and name is None:
            return self._chosen
        for pointer in [name] if name else ["best", "last"]:
            if (self.folder / "checkpoints" / pointer).is_file():
                return _pointed(self.folder / "checkpoints" / pointer)
        if self._chosen is not None:
            return self._chosen
        raise InputError(f"{self.folder}: no checkpoint here; expected {STATE}, or a run that has saved one")

    def checkpoint(self, name: str | None = None) -> Checkpoint:
        """The reported checkpoint, or the one that `last` or `best` names, its files checked against their hashes.

        Raises:
            InputError: there is none, or a file is missing, truncated or altered, or of another format version.
        """
        return read_checkpoint(self.find_checkpoint(name))

    def items(self) -> tuple[list[str], np.ndarray]:
        """Raw id and training clicks of every item, the padding first.

        Raises:
            InputError: the run has no items.csv, or it does not fit the checkpoint.
        """
        path, n_items = self.folder / ITEMS, self.checkpoint().n_items
        hint = "copy there the items.csv of the dataset that the weights were trained on"
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
            InputError: the dataset is unknown or damaged, or its items are others; the message says where they part.
        """
        checkpoint = self.checkpoint()
        own = checkpoint.dataset
        if data is None and own["path"] is None:
            raise InputError(
                f"{self.name}: trained on {own['name']} data without a folder; name a dataset that numbers its "
                f"{checkpoint.n_items - 1} items as they were numbered in training"
            )
        dataset = data if isinstance(data, SessionDataset) else paddle_srgnn.load_dataset(own["path"] if data is None else data)
        if own["hash"] == dataset.hash:
            return dataset
        found = f"{checkpoint.folder}: of {own['name']}, does not fit {dataset.name}"
        if checkpoint.n_items != dataset.n_items:
            raise InputError(f"{found}: {checkpoint.n_items} items against {dataset.n_items}, padding included")
        if own["hash"] is None:
            logger.warning(
                "%s: imported weights, whose dataset is unknown; their items are taken to be numbered as in %s",
                self.name, dataset.name,
            )  # fmt: skip
            return dataset
        if not (self.folder / ITEMS).is_file():
            raise InputError(f"{found}: the hashes differ, and without the run's {ITEMS} the items cannot be compared")
        for number, (mine, other) in enumerate(zip(self.items()[0], dataset.item_ids, strict=True)):
            if mine != other:
                raise InputError(f"{found}: item {number} is {mine!r} there and {other!r} here; preprocess alike")
        return dataset

    def model(self) -> paddle_srgnn.SRGNN:
        """The model with the weights of the reported checkpoint, in evaluation mode."""
        checkpoint = self.checkpoint()
        config = checkpoint.settings.model_config(checkpoint.n_items)
        return paddle_srgnn.SRGNN.from_file(config, checkpoint.folder / MODEL)

    def recommender(self, index: str = "exact") -> paddle_srgnn.Recommender:
        """See `Recommender.load`."""
        return paddle_srgnn.Recommender.load(self, index)


def find_runs(path: Path) -> list[Path]:
    """The runs in a folder and in its subfolders, by name, "a-2" before "a-10"; any other path stands for itself."""

    def is_run(folder: Path) -> bool:
        return (folder / CONFIG).is_file() or (folder / "checkpoints").is_dir()

    def in_order(folder: Path) -> list[Path]:
        visible = (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
        return sorted(visible, key=lambda child: [int(part) if part.isdecimal() else part for part in
                                                  re.split(r"(\d+)", child.name)])  # fmt: skip

    if is_run(path) or not path.is_dir():
        return [path]
    found = [run for child in in_order(path) for run in ([child] if is_run(child) else filter(is_run, in_order(child)))]
    return found or [path]


def _pointed(pointer: Path) -> Path:
    folder = pointer.parent / pointer.read_text(encoding="utf-8", errors="replace").strip()
    if folder.parent != pointer.parent or not (folder / STATE).is_file():
        raise InputError(f"{pointer}: names {folder.name!r}, which is no checkpoint beside it; name one by its path")
    return folder


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
        dataset = {"protocol": "sessions"} | state["dataset"]
        return Checkpoint(folder, settings, state["n_items"], dataset, progress)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing, the checkpoint is not complete") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a checkpoint's state ({type(error).__name__}: {error})") from None


def describe_dataset(dataset: SessionDataset) -> dict:
    """How a run and its checkpoints name their dataset; `load_dataset` takes the path."""
    path = "sample" if dataset.is_sample else dataset.path and str(dataset.path.resolve())
    return {"name": dataset.name, "path": path, "hash": dataset.hash, "protocol": dataset.protocol}


def describe_environment(device: str, threads: int) -> dict:
    """What a result may depend on besides the settings."""
    packages = ("paddle-srgnn", "paddlepaddle", "paddlepaddle-gpu", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "device": device, "threads": threads, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """The revision of the checkout this package runs from; None for an installed copy."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def create_run(folder: Path, config: RunConfig, dataset: SessionDataset) -> None:
    """Make a run's folder with config.yaml and the items, so that the run is usable without its dataset.

    Raises:
        InputError: the folder exists.
    """
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
        raise InputError(f"{folder}: no run here, it has no {CONFIG}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = make_settings(values["settings"], str(path))
        dataset = {"protocol": "sessions"} | values["dataset"]
        return RunConfig(values["recipe"], settings, dataset, values["environment"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from None

"""The folder of a run: what was trained on what, with which settings, by which versions."""

from __future__ import annotations

import dataclasses
import itertools
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import yaml

from .config import Settings, make_settings
from .datasets.sessions import SessionDataset, write_items
from .errors import InputError
from .files import atomic_file, atomic_folder

CONFIG, ITEMS = "config.yaml", "items.csv"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run's config.yaml.

    Attributes:
        recipe: the recipe's name.
        settings: everything applied.
        dataset: name, path ("sample" for the embedded one) and hash.
        environment: versions, device, threads, git revision.
    """

    recipe: str
    settings: Settings
    dataset: dict
    environment: dict


def describe_dataset(dataset: SessionDataset) -> dict:
    """How a run and its checkpoints name their dataset; `load_dataset` takes the path."""
    path = "sample" if dataset.path is None else str(dataset.path.resolve())
    return {"name": dataset.name, "path": path, "hash": dataset.hash}


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
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def next_run_folder(dataset: str, recipe: str) -> Path:
    """The first of runs/DATASET-RECIPE-1, -2, ... that does not exist."""
    return next(path for n in itertools.count(1) if not (path := Path("runs") / f"{dataset}-{recipe}-{n}").exists())


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


def create_run(folder: Path, config: RunConfig, dataset: SessionDataset) -> None:
    """Make a run's folder with config.yaml and the items, so that the run is usable without its dataset.

    Raises:
        InputError: the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already: go on with --resume, or choose another folder")
    with atomic_folder(folder) as temporary:
        write_config(temporary / CONFIG, config)
        write_items(temporary / ITEMS, dataset)


def update_run(folder: Path, config: RunConfig) -> None:
    """Replace a run's config.yaml."""
    with atomic_file(folder / CONFIG) as temporary:
        write_config(temporary, config)


def write_config(path: Path, config: RunConfig) -> None:
    """Write a config.yaml."""
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(config.settings).items()}
    values = vars(config) | {"settings": settings}
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_run(folder: Path) -> RunConfig:
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
        return RunConfig(values["recipe"], settings, values["dataset"], values["environment"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from None

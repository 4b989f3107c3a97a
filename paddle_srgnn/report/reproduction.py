"""The settings, versions and hashes behind the results, and the commands that reproduce them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import Settings, load_recipe, recipe_names
from ..evaluation.results import Result
from ..files import sha256
from ..run import MODEL, Run


class Origin(NamedTuple):
    """What made a checkpoint.

    Attributes:
        checkpoint: its folder.
        epoch: how many epochs were completed.
        weights: SHA-256 of the file of weights.
        recipe, environment: from the run's config.yaml; "" and empty without one.
        settings: all of them.
        dataset: name, path and hash of the training data.
        history: the rows of the run's metrics.csv, without empty cells.
    """

    checkpoint: Path
    epoch: int
    weights: str
    recipe: str
    environment: dict
    settings: Settings
    dataset: dict
    history: list[dict[str, float]]


def origin_of(run: Run) -> Origin:
    """The origin of a run's reported checkpoint, read once."""
    checkpoint = run.checkpoint()
    return Origin(
        checkpoint.folder, checkpoint.progress.epoch - 1, sha256(checkpoint.folder / MODEL), run.recipe,
        run.environment, checkpoint.settings, checkpoint.dataset, run.metrics,
    )  # fmt: skip


class Fact(NamedTuple):
    """A row of the table of settings: its name, each run's value, and whether a difference is worth marking."""

    name: str
    values: list[str]
    differs: bool


def commands(models: Sequence[Result], command: str | None) -> str:
    """The command line that made the page, unless a training did, and one that trains each model."""
    parts = [f"# this page\n{command}"] if command else []
    for row in models:
        again = train_command(row.origin) or "# imported weights, or a dataset without a folder"
        parts.append(f"# {row.name}\n{again}")
    return "\n\n".join(parts)


def facts(models: Sequence[Result]) -> dict[str, list[Fact]]:
    """Everything that was set, in parts; what differs between the models comes first in each part."""
    origins = [row.origin for row in models]
    parts = {
        "Code": [_code(origin) for origin in origins],
        "Data": [origin.dataset for origin in origins],
        "Weights": [{"checkpoint": o.checkpoint, "epochs completed": o.epoch, "SHA-256": o.weights} for o in origins],
        "Settings": [vars(origin.settings) for origin in origins],
    }
    return {part: _in_order(columns, mark=part != "Weights") for part, columns in parts.items()}


def _code(origin: Origin) -> dict[str, object]:
    environment = origin.environment
    named = {"git revision": environment.get("git_revision"), "recipe": origin.recipe}
    return named | {key: environment.get(key) for key in ("device", "threads")} | environment.get("versions", {})


def _in_order(columns: Sequence[dict], mark: bool) -> list[Fact]:
    found = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = [_in_words(column.get(key)) for column in columns]
        found.append(Fact(key, values, mark and len(set(values)) > 1))
    return sorted(found, key=lambda fact: not fact.differs)


def _in_words(value: object) -> str:
    return "–" if value in (None, "", ()) else _as_given(value)


def all_but_seed(origin: Origin) -> tuple:
    """Equal for runs that differ in nothing but the seed."""
    return origin.recipe, origin.dataset["hash"], dataclasses.replace(origin.settings, seed=0)


def train_command(origin: Origin) -> str | None:
    """The command line that trains a checkpoint again; None for imported weights and for data in memory."""
    if origin.dataset["path"] is None:
        return None
    recipe = origin.recipe if origin.recipe in recipe_names() else "paper"  # a recipe's file may have changed since
    standard = vars(load_recipe(recipe))
    words = ["srgnn", "train", "--data", origin.dataset["path"], "--recipe", recipe]
    for key, value in vars(origin.settings).items():
        if value != standard[key]:
            words += ["--set", f"{key}={_as_given(value)}"]
    for option in ("device", "threads"):
        if option in origin.environment:
            words += [f"--{option}", str(origin.environment[option])]
    return shlex.join(words)


def _as_given(value: object) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

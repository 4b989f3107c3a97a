"""The page's last part: every setting, version and hash behind its results, and the commands that give them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import Settings, load_recipe, recipe_names
from ..datasets.sessions import SessionDataset
from .markup import Html, element, table


class Origin(NamedTuple):
    """What made a checkpoint.

    Attributes:
        checkpoint: its folder.
        epoch: how many were done.
        weights: SHA-256 of its weights' file.
        recipe, environment: of its run's config.yaml; "" and empty without one.
        settings: everything applied.
        dataset: name, path and hash of what it was trained on.
        history: the rows of its run's metrics.csv, without what was not measured.
    """

    checkpoint: Path
    epoch: int
    weights: str
    recipe: str
    environment: dict
    settings: Settings
    dataset: dict
    history: list[dict[str, float]]


def reproduction(origins: Sequence[tuple[str, Origin]], dataset: SessionDataset, command: str) -> Iterable[Html]:
    """The section on how to get the results again.

    Args:
        origins: the name and the origin of every checkpoint of the page.
        dataset: what they were evaluated on.
        command: the command line that made the page.
    """
    yield element("h2", "How to get this again")
    yield element("p", "Dataset ", element("strong", dataset.name), f", SHA-256 {dataset.hash}", class_="soft")
    lines = ["# this page", command]
    for name, origin in origins:
        lines += ["", f"# {name}", train_command(origin) or "# imported weights: no training of this package made them"]
    yield element("pre", "\n".join(lines))
    if not origins:
        return
    names = [name for name, _ in origins]
    parts = {
        "Code": [_code(origin) for _, origin in origins],
        "Data": [{key: _in_words(value) for key, value in origin.dataset.items()} for _, origin in origins],
        "Weights": [_weights(origin) for _, origin in origins],
        "Settings": [{key: _in_words(value) for key, value in vars(origin.settings).items()} for _, origin in origins],
    }
    yield element("h3", "Everything that was set")
    if len(names) > 1:
        yield element("p", "What differs between the runs is highlighted and stands first.", class_="soft")
    rows = []
    for part, columns in parts.items():
        rows.append(element("tr", element("th", part, scope="rowgroup", colspan=1 + len(names)), class_="part"))
        rows += _part_rows(columns, mark=part != "Weights")
    header = [element("th", ""), *(element("th", name, scope="col") for name in names)]
    yield table("Everything that was set", header, rows)


def _code(origin: Origin) -> dict[str, str]:
    environment = origin.environment
    facts = {"git revision": environment.get("git_revision"), "recipe": origin.recipe}
    facts |= {key: environment.get(key) for key in ("device", "threads")}
    facts |= environment.get("versions", {})
    return {key: _in_words(value) for key, value in facts.items()}


def _weights(origin: Origin) -> dict[str, str]:
    return {"checkpoint": str(origin.checkpoint), "epochs done": str(origin.epoch), "SHA-256": origin.weights}


def _in_words(value: object) -> str:
    if value in (None, "", ()):
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _part_rows(columns: Sequence[dict[str, str]], mark: bool) -> list[Html]:
    """A row for each fact; those that differ between the columns first, and marked where that means something."""
    keys = dict.fromkeys(key for column in columns for key in column)
    values = {key: [column.get(key, "–") for column in columns] for key in keys}
    differing = [key for key in keys if mark and len(set(values[key])) > 1]
    return [
        element("tr", element("th", key, scope="row"), *(element("td", value, class_="word") for value in values[key]),
                class_="differs" if key in differing else None)
        for key in [*differing, *(key for key in keys if key not in differing)]
    ]  # fmt: skip


def train_command(origin: Origin) -> str | None:
    """The command line that trains it again; None of imported weights, which no training of this package made."""
    if origin.recipe not in recipe_names() or origin.dataset["path"] is None:
        return None
    standard = vars(load_recipe(origin.recipe))
    words = ["python", "tools/train.py", "--data", origin.dataset["path"], "--recipe", origin.recipe]
    for key, value in vars(origin.settings).items():
        if value != standard[key]:
            words += ["--set", f"{key}={_as_given(value)}"]
    for option in ("device", "threads"):
        if option in origin.environment:
            words += [f"--{option}", str(origin.environment[option])]
    return shlex.join(words)


def _as_given(value: object) -> str:
    """A setting's value as `--set` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

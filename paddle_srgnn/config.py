"""Typed settings: what a recipe says, what `--set key=value` changes, and a clear error for anything else."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

RECIPES = Path(__file__).parent / "recipes"
METRICS = {"sessions": ("P", "MRR", "NDCG"), "course": ("recall", "hitrate", "course_ndcg", "ndcg")}  # by protocol


def _setting(default: Any, word: str, minimum: float | None = None, below: float | None = None, choices: tuple = ()):
    metadata = {"word": word, "minimum": minimum, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what a training computes; the defaults are the reference's layers."""

    # The model
    embedding_dim: int = _setting(100, "width d of item and session vectors", minimum=1)
    step: int = _setting(1, "how often a graph passes messages", minimum=1)
    initialization: str = _setting(
        "paddle", "paddle: Paddle's own; uniform: U(-1/sqrt d, 1/sqrt d)", choices=("paddle", "uniform")
    )
    score_item_zero: bool = _setting(True, "whether the padding item is a class of the training softmax")
    cosine_scale: float = _setting(
        0.0, "0: scores are products; else this times the cosine, nodes and clicks of length 1", minimum=0
    )
    dropout: float = _setting(0.0, "probability of zeroing a number of a node's vector in training", minimum=0, below=1)
    positions: int = _setting(0, "0: none; else how many of the last positions have a vector of their own", minimum=0)
    label_smoothing: float = _setting(0.0, "share of the label spread over all items", minimum=0, below=1)
    max_session_length: int = _setting(70, "how many of a session's most recent clicks are read", minimum=1)
    # The optimiser
    learning_rate: float = _setting(0.001, "Adam's step size at first, or after the warm-up", minimum=0)
    lr_schedule: str = _setting(
        "steps", "steps: as lr_decay says; cosine: warm-up, then half a cosine to 0", choices=("steps", "cosine")
    )
    warmup_steps: int = _setting(0, "steps over which lr_schedule=cosine rises to the step size", minimum=0)
    weight_decay: float = _setting(0.0, "L2 penalty, added to the gradient of every parameter", minimum=0)
    batch_size: int = _setting(512, "samples in a batch", minimum=1)
    epochs: int = _setting(7, "passes over the training samples", minimum=1)
    lr_decay_after: tuple[int, ...] = _setting((), "epochs after which the step size is times lr_decay", minimum=1)
    lr_decay: float = _setting(0.1, "the factor of lr_decay_after", minimum=0)
    ema_decay: float = _setting(0.0, "0: none; else the weights to use are this moving average's", minimum=0, below=1)
    seed: int = _setting(0, "decides the initialisation and the order of samples", minimum=0)
    # Validation
    valid_fraction: float = _setting(
        0.0, "share of training sessions, the latest, for validation, where the data have none", minimum=0, below=1
    )
    patience: int = _setting(0, "epochs without gain on validation that end training; 0: none do", minimum=0)
    monitor: str = _setting("MRR@20", "the metric on validation that decides, such as MRR@20 or recall@50")
    eval_every_epoch: bool = _setting(False, "whether every epoch is tested, for best-on-test figures")
    # The work; nothing here changes a result
    eval_batch_size: int = _setting(512, "samples in a batch of an evaluation", minimum=1)
    num_workers: int = _setting(0, "processes that build batches; 0: a thread of this one", minimum=0)
    save_every_steps: int = _setting(1000, "steps between checkpoints in an epoch; 0: at its end only", minimum=0)

    def model_config(self, n_items: int) -> dict[str, Any]:
        """The `config` of SRGNN."""
        keys = ("embedding_dim", "step", "initialization", "score_item_zero",
                "cosine_scale", "dropout", "positions", "label_smoothing")  # fmt: skip
        return {"n_items": n_items, **{key: getattr(self, key) for key in keys}}

    def learning_rate_at(self, step: int, steps_in_epoch: int) -> float:
        """Adam's step size in the given step, counted from 0 over all epochs.

        With `cosine` it rises linearly for `warmup_steps`, then falls as half a cosine that would be 0 after the last
        step (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts).
        """
        if self.lr_schedule == "steps":
            epoch = step // steps_in_epoch + 1
            return self.learning_rate * self.lr_decay ** sum(epoch > after for after in self.lr_decay_after)
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        after_warmup = self.epochs * steps_in_epoch - self.warmup_steps
        return self.learning_rate * (1 + math.cos(math.pi * (step - self.warmup_steps) / after_warmup)) / 2

    def model_switches(self) -> dict[str, Any]:
        """What of `model_config` makes other scores than the reference's layers would with the same weights."""
        sizes_and_training = ("n_items", "embedding_dim", "step", "initialization", "dropout", "label_smoothing")
        defaults = {name: field.default for name, field in FIELDS.items()}
        return {
            key: value
            for key, value in self.model_config(0).items()
            if key not in sizes_and_training and value != defaults.get(key)
        }


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, changes: Iterable[str] = ()) -> Settings:
    """The settings of a recipe with `key=value` changes applied.

    Raises:
        InputError: an unknown recipe or key (the message names the nearest), or a value of the wrong type or range.
    """
    import yaml

    path = RECIPES / f"{name}.yaml"
    if name not in recipe_names():
        known = recipe_names()
        raise InputError(f"unknown recipe {name!r}{_nearest(name, known)}; there are: {', '.join(known)}")
    return make_settings(yaml.safe_load(path.read_text(encoding="utf-8")) | parse_changes(changes), f"recipe {name}")


def parse_changes(changes: Iterable[str]) -> dict[str, str]:
    """Split every "key=value".

    Raises:
        InputError: there is no "=".
    """
    values = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: expected key=value, for example --set epochs=3")
        values[key.strip()] = value.strip()
    return values


def make_settings(values: Mapping[str, Any], source: str) -> Settings:
    """Check the type and range of every value, given as itself or as text.

    Raises:
        InputError: as `load_recipe`; the message names `source`.
    """
    checked = {}
    for key, value in values.items():
        if key not in FIELDS:
            raise InputError(f"{source}: unknown setting {key!r}{_nearest(key, FIELDS)}; known: {', '.join(FIELDS)}")
        checked[key] = _checked(FIELDS[key], value, source)
    settings = Settings(**checked)
    parse_metric(settings.monitor, source)
    return settings


def parse_metric(name: str, source: str) -> tuple[str, int]:
    """Split "MRR@20" into ("MRR", 20); any protocol's metrics will do."""
    kind, _, k = name.partition("@")
    known = [metric for metrics in METRICS.values() for metric in metrics]
    if kind not in known or not k.isdecimal() or int(k) < 1:
        expected = ", ".join(f"{metric}@K" for metric in known)
        raise InputError(f"{source}: unknown metric {name!r}: expected one of {expected}, for example MRR@20")
    return kind, int(k)


def metric_on(protocol: str, name: str) -> str:
    """The name of a monitored metric on a dataset of the given protocol.

    With one right item per sample, recall@K is what the field calls P@K; so one recipe serves both protocols.

    Raises:
        InputError: the protocol has no such metric.
    """
    kind, k = parse_metric(name, "monitor")
    if protocol == "sessions" and kind == "recall":
        kind = "P"
    if kind not in METRICS[protocol]:
        known = ", ".join(f"{metric}@K" for metric in METRICS[protocol])
        raise InputError(f"monitor={name}: data of protocol {protocol} have {known}; --set monitor to one of them")
    return f"{kind}@{k}"


def _checked(field: dataclasses.Field, value: Any, source: str) -> Any:
    found = f"{source}: {field.name}={value!r}"
    try:
        value = _CONVERSIONS[field.type](value)
    except (TypeError, ValueError):
        raise InputError(f"{found}: expected {_KINDS[field.type]} ({field.metadata['word']})") from None
    minimum, below, choices = (field.metadata[key] for key in ("minimum", "below", "choices"))
    for number in value if isinstance(value, tuple) else (value,):
        if minimum is not None and number < minimum:
            raise InputError(f"{found}: must be at least {minimum} ({field.metadata['word']})")
        if below is not None and number >= below:
            raise InputError(f"{found}: must be below {below} ({field.metadata['word']})")
    if choices and value not in choices:
        raise InputError(f"{found}: must be one of {', '.join(choices)}{_nearest(value, choices)}")
    return value


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _to_bool(value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _to_ints(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").split(",") if part.strip()]
    return tuple(_to_int(part) for part in value)


_CONVERSIONS = {"int": _to_int, "float": _to_float, "bool": _to_bool, "str": str, "tuple[int, ...]": _to_ints}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "tuple[int, ...]": "whole numbers with commas between, such as 2,5",
}


def _nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f": did you mean {match[0]!r}?" if match else ""

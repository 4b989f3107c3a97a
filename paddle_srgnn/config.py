"""Typed settings, read from recipes and changes and checked for their type and range."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import reprlib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

RECIPES = Path(__file__).parent / "recipes"
LONGEST_YAML, DEEPEST_YAML = 1 << 20, 20  # bytes of a file, and levels of its lists and mappings
METRICS = ("P", "MRR", "NDCG", "recall", "hitrate", "course_ndcg", "ndcg")  # of all protocols, each with a K
COUNT = 2**31 - 1  # the largest of most settings, and what Paddle's indices can hold


def _setting(default: Any = dataclasses.MISSING, *, help: str, minimum=None, maximum=COUNT, below=None, choices=()):
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The settings of `SRGNN`'s layers; the defaults are the reference's.

    - `initialization`: "paddle" is the reference's, which builds initialisers without applying them. "uniform" draws
      every parameter from U(-1/sqrt(d), 1/sqrt(d)), as the authors do.
    - `cosine_scale`: if not 0, a score is this times the cosine of session and item, and node and click vectors are
      normalised before the graph network and before the readout (Gupta et al., "NISER: Normalized Item and Session
      Representations", 2019). Popular items then cannot win by the length of their vectors.
    - `dropout`: on node vectors before the graph network, in training mode only (as in NISER).
    - `positions`: if not 0, the number of rows of a position embedding. The n-th row is added to the n-th click from
      the end after the graph network; earlier clicks share the last row (reversed positions: Wang et al., "GCE-GNN",
      SIGIR 2020, which concatenates them).
    """

    embedding_dim: int = _setting(100, help="size d of item and session vectors", minimum=1, maximum=65_536)
    step: int = _setting(1, help="message passing steps of the graph network", minimum=1, maximum=1_000)
    initialization: str = _setting(
        "paddle", help="paddle: Paddle's defaults; uniform: U(-1/sqrt(d), 1/sqrt(d))", choices=("paddle", "uniform")
    )
    score_item_zero: bool = _setting(True, help="whether the padding item 0 is a class of the training softmax")
    cosine_scale: float = _setting(0.0, help="0: inner product; else scores are this times the cosine", minimum=0)
    dropout: float = _setting(0.0, help="dropout probability on node vectors", minimum=0, below=1)
    positions: int = _setting(
        0, help="0: none; else how many of the last positions get an embedding", minimum=0, maximum=1_000_000
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelSettings):
    """The config of `SRGNN`: `ModelSettings` and the size of the item table, padding included."""

    n_items: int = _setting(help="number of items, padding included", minimum=1)

    @classmethod
    def of(cls, config: ModelConfig | Mapping[str, Any]) -> ModelConfig:
        """Check a config, or create one from the reference's dict; like the reference this ignores other keys.

        Raises:
            InputError: a key of the reference is missing, or a value has the wrong type or range.
        """
        values = config if isinstance(config, Mapping) else vars(config)
        for key in ("embedding_dim", "step", "n_items"):
            if key not in values:
                raise InputError(f"SRGNN config: {key} is missing; expected a whole number")
        known = [field.name for field in dataclasses.fields(cls) if field.name in values]
        return cls(**{key: _checked(cls, key, values[key], "SRGNN config") for key in known})


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """All settings of a training."""

    max_session_length: int = _setting(
        70, help="most recent clicks of a session that are read", minimum=1, maximum=1_000_000
    )
    # The loss and the optimizer
    label_smoothing: float = _setting(0.0, help="share of the label spread over all items", minimum=0, below=1)
    learning_rate: float = _setting(
        0.001, help="Adam's learning rate, after the warm-up if any", minimum=0, maximum=1e30
    )
    lr_schedule: str = _setting(
        "steps", help="steps: see lr_decay_after; cosine: warm-up, then half a cosine to 0", choices=("steps", "cosine")
    )
    warmup_steps: int = _setting(0, help="steps of linear warm-up with lr_schedule=cosine", minimum=0)
    lr_decay_after: tuple[int, ...] = _setting((), help="epochs after which lr_schedule=steps decays", minimum=1)
    lr_decay: float = _setting(0.1, help="factor of the learning rate after each of lr_decay_after", minimum=0)
    weight_decay: float = _setting(0.0, help="L2 penalty in the gradient of every parameter", minimum=0)
    batch_size: int = _setting(512, help="samples in a batch", minimum=1)
    epochs: int = _setting(7, help="passes over the training samples", minimum=1)
    ema_decay: float = _setting(0.0, help="0: none; else decay of the moving average of weights", minimum=0, below=1)
    seed: int = _setting(0, help="seed of the initialisation and of the order of samples", minimum=0, maximum=2**63 - 1)
    # Validation
    valid_fraction: float = _setting(
        0.0, help="most recent share of training sessions held out if there is no validation set", minimum=0, below=1
    )
    patience: int = _setting(0, help="epochs without improvement before training stops; 0: never", minimum=0)
    monitor: str = _setting("MRR@20", help="validation metric that chooses the best epoch")
    eval_every_epoch: bool = _setting(False, help="test after every epoch, for best-on-test figures")
    # These do not change results
    eval_batch_size: int = _setting(512, help="samples in a batch of an evaluation", minimum=1)
    save_every_steps: int = _setting(1000, help="steps between checkpoints; 0: only after each epoch", minimum=0)

    def model_config(self, n_items: int) -> ModelConfig:
        """The config of `SRGNN` with these settings."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(ModelSettings)}
        return ModelConfig(n_items=n_items, **own)

    def memory(self, n_items: int, n_samples: int, n_measured: int) -> tuple[int, int]:
        """About how many bytes a training takes at least: of model and optimizer, and of one batch of scores."""
        weights = self.embedding_dim * (n_items + self.positions + 15 * self.embedding_dim)
        largest = max(min(self.batch_size, n_samples), min(self.eval_batch_size, n_measured))
        return 4 * (5 if self.ema_decay else 4) * weights, 4 * largest * n_items

    def scoring_switches(self) -> dict[str, Any]:
        """The settings that make the model's scores differ from the reference's with the same weights."""
        switches = ("score_item_zero", "cosine_scale", "positions")
        return {key: getattr(self, key) for key in switches if getattr(self, key) != FIELDS[key].default}

    def learning_rate_at(self, step: int, steps_in_epoch: int) -> float:
        """Adam's learning rate in a step, counted from 0 over all epochs.

        With `cosine` it rises linearly for `warmup_steps`, then falls as half a cosine that reaches 0 after the last
        step (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts).
        """
        if self.lr_schedule == "steps":
            epoch = step // steps_in_epoch + 1
            return self.learning_rate * self.lr_decay ** sum(epoch > after for after in self.lr_decay_after)
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        after_warmup = self.epochs * steps_in_epoch - self.warmup_steps
        return self.learning_rate * (1 + math.cos(math.pi * (step - self.warmup_steps) / after_warmup)) / 2


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def recipe_names() -> list[str]:
    """The names of the package's recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The contents of a recipe of the package, or of a YAML file given by its path.

    Raises:
        InputError: an unknown recipe, or the file is missing or not a mapping.
    """
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and name not in (known := recipe_names()):
        expected = f"expected {', '.join(known)} or a file that ends in .yaml"
        raise InputError(f"unknown recipe {shown(name)}{_nearest(name, known)}; {expected}")
    try:
        values = read_yaml(Path(name) if is_file else RECIPES / f"{name}.yaml")
    except OSError as error:
        raise InputError(f"recipe {shown(name)}: cannot be read ({error.strerror})") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {name}: found a {type(values).__name__}, expected a mapping of settings")
    return values


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file without aliases, which let a short file stand for an endless value.

    Raises:
        InputError: the file is not such YAML, is longer than a megabyte or too deeply nested.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader if PyYAML has it, as help reads every recipe
    depth = 0
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_YAML + 1)
        if len(content) > LONGEST_YAML:
            raise InputError(f"{path}: longer than {LONGEST_YAML:,} bytes; expected a few settings")
        for event in yaml.parse(content, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST_YAML:
                what = "an alias" if isinstance(event, yaml.AliasEvent) else f"more than {DEEPEST_YAML} nested levels"
                raise InputError(f"{path}: line {event.start_mark.line + 1}: found {what}; expected plain values")
        return yaml.load(content, loader)
    except InputError:
        raise
    # PyYAML lets pass what its own conversions raise, for a date such as 2026-99-99 or an empty !!int.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]})") from None


def shown(value: Any) -> str:
    """A value for a message, as `repr` but shortened."""
    try:
        return _short.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a recipe with changes applied, each a value or its text form.

    Raises:
        InputError: as `read_recipe`; or an unknown setting, or a value of the wrong type or range.
    """
    return make_settings(read_recipe(name) | dict(changes or {}), f"recipe {name}")


def make_settings(values: Mapping[str, Any], source: str) -> Settings:
    """Check the type and range of every value, given itself or as text.

    Raises:
        InputError: an unknown setting, or a value of the wrong type or range; the message names `source`.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: settings={shown(values)}: expected a mapping")
    for key in values:
        if key not in FIELDS:
            known = f"{_nearest(key, FIELDS)}; known: {', '.join(FIELDS)}"
            raise InputError(f"{source}: unknown setting {shown(key)}{known}")
    settings = Settings(**{key: _checked(Settings, key, value, source) for key, value in values.items()})
    parse_metric(settings.monitor, source)
    return settings


def check_types(values: Any, types: dict[str, type | tuple], path: str | Path) -> dict[str, Any]:
    """The values of a file, after a check of those that have to be there and of their types."""
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged, found {shown(values)}; expected a mapping")
    for key, expected in types.items():
        if not isinstance(values.get(key, ...), expected):
            found = f"found {shown(values[key])}" if key in values else "missing"
            names = " or ".join(kind.__name__ for kind in (expected if isinstance(expected, tuple) else (expected,)))
            raise InputError(f"{path}: damaged, {key}: {found}; expected {names.replace('NoneType', 'nothing')}")
    return values


def parse_metric(name: str, source: str) -> tuple[str, int]:
    """Split "MRR@20", a metric of any protocol, into ("MRR", 20)."""
    kind, _, k = name.partition("@")
    if kind not in METRICS or not k.isdecimal() or len(k) > 9 or int(k) < 1:
        expected = ", ".join(f"{metric}@K" for metric in METRICS)
        raise InputError(f"{source}: unknown metric {shown(name)}; expected one of {expected}, for example MRR@20")
    return kind, int(k)


_type_hints = functools.cache(typing.get_type_hints)  # it takes a millisecond


def _checked(kind: type[ModelSettings], key: str, value: Any, source: str) -> Any:
    """A setting's value, converted to its type and checked for its range."""
    metadata, expected_type = kind.__dataclass_fields__[key].metadata, _type_hints(kind)[key]
    convert, expected = _TYPES[expected_type]
    found = f"{source}: {key}={shown(value)}"
    try:
        value = convert(value)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(f"{found}: expected {expected} ({metadata['help']})") from None
    minimum, maximum, below, choices = (metadata[bound] for bound in ("minimum", "maximum", "below", "choices"))
    for number in value if isinstance(value, tuple) else (value,):
        if minimum is not None and number < minimum:
            raise InputError(f"{found}: must be at least {minimum} ({metadata['help']})")
        if below is not None and number >= below:
            raise InputError(f"{found}: must be below {below} ({metadata['help']})")
        if minimum is not None and number > maximum:
            raise InputError(f"{found}: must be at most {maximum} ({metadata['help']})")
    if choices and value not in choices:
        raise InputError(f"{found}: must be one of {', '.join(choices)}{_nearest(value, choices)}")
    return value


def _to_int(value: Any) -> int:
    if value is True or value is False or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _to_ints(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").split(",") if part.strip()]
    return tuple(_to_int(part) for part in ([value] if isinstance(value, int) else value))


_TYPES = {
    int: (_to_int, "a whole number"),
    float: (_to_float, "a number"),
    bool: (lambda value: {"true": True, "false": False}[str(value).lower()], "true or false"),
    str: (str, "text"),
    tuple[int, ...]: (_to_ints, "whole numbers separated by commas, such as 2,5"),
}


def _nearest(name: Any, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5) if isinstance(name, str) else []
    return f"; did you mean {match[0]!r}?" if match else ""

"""SR-GNN (Wu et al., AAAI 2019) for PaddlePaddle.

    data = paddle_srgnn.load_dataset("sample")
    run = paddle_srgnn.train(data, epochs=1)
    run.recommender().recommend(["21553", "551"], k=3).items

Importing the package imports neither Paddle nor numpy and changes nothing in the process; the names below are loaded
when they are first used. Those that compute with Paddle then call `tune()`, unless Paddle is imported already.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers
    from .datasets.load import dataset_from_frame as dataset_from_frame
    from .datasets.load import load_dataset as load_dataset
    from .evaluation.baselines import baselines as baselines
    from .evaluation.results import evaluate as evaluate
    from .model import GNN as GNN
    from .model import SRGNN as SRGNN
    from .run import Run as Run
    from .runtime import tune as tune
    from .serving.recommender import Recommender as Recommender
    from .training.train import train as train

__version__ = "0.1.0"
__all__ = [
    "GNN", "SRGNN", "Recommender", "Run", "__version__", "baselines", "dataset_from_frame", "evaluate", "load_dataset",
    "train", "tune",
]  # fmt: skip

_HOMES = {
    "GNN": "model",
    "SRGNN": "model",
    "Recommender": "serving.recommender",
    "Run": "run",
    "baselines": "evaluation.baselines",
    "dataset_from_frame": "datasets.load",
    "evaluate": "evaluation.results",
    "load_dataset": "datasets.load",
    "train": "training.train",
    "tune": "runtime",
}
_TUNED = ("Recommender", "evaluate", "train")  # their modules import Paddle, so tuning inside of them would be late


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _TUNED and "paddle" not in sys.modules:
        importlib.import_module(".runtime", __name__).tune()
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""SR-GNN (Wu et al., AAAI 2019) for PaddlePaddle.

Importing the package imports neither Paddle nor numpy and changes nothing in the process; the names below are loaded
when they are first used. For full speed call `paddle_srgnn.runtime.tune()` before anything imports Paddle.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"
__all__ = ["GNN", "SRGNN", "Recommender", "__version__"]

_HOMES = {"GNN": "model", "SRGNN": "model", "Recommender": "serving.recommend"}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

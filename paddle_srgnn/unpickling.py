"""Reading pickles that others made, without running anything in them.

An ordinary unpickler imports and calls whatever a file names. The one here looks nothing up: a name is either among the
few that its caller has a stand-in for, or the file is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from .errors import InputError


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers and strings, and what the stand-ins build."""

    def __init__(self, file, expected: str, stand_ins: Mapping[tuple[str, str], object]):
        super().__init__(file)
        self._expected, self._stand_ins = expected, stand_ins

    def find_class(self, module: str, name: str):
        if (module, name) not in self._stand_ins:
            raise InputError(f"refuses {module}.{name}: expected {self._expected} only")
        return self._stand_ins[module, name]

    def persistent_load(self, pid):
        raise InputError(f"refuses a persistent id: expected {self._expected} only")


def load_pickle(path: Path, expected: str, stand_ins: Mapping[tuple[str, str], object] | None = None):
    """The content of a pickle of plain values.

    Args:
        expected: what the file should hold, for the message.
        stand_ins: what a name (module, attribute) in the file stands for. A pickle may call these objects and set their
            state as it likes, so they must be safe to call with anything and take no state.

    Raises:
        InputError: it is missing or no pickle, or names anything else; nothing was run.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, expected, stand_ins or {}).load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a pickle of {expected}") from None
    except Exception as error:  # garbage makes the unpickler raise nearly anything
        raise InputError(f"{path} is no pickle, or a damaged one: {type(error).__name__}: {error}") from error

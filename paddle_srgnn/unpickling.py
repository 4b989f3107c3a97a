"""Read untrusted pickles without running code from them.

An ordinary unpickler imports and calls whatever a file names. This one imports nothing: it refuses a file with any name
that its caller provides no stand-in for.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers and strings, and the objects that stand-ins return."""

    def __init__(self, file, expected: str, stand_ins: Mapping[tuple[str, str], object]):
        super().__init__(file)
        self._expected, self._stand_ins = expected, stand_ins

    def find_class(self, module: str, name: str):
        if (module, name) not in self._stand_ins:
            raise InputError(f"refuses {module}.{name}: expected only {self._expected}")
        return self._stand_ins[module, name]

    def persistent_load(self, pid):
        raise InputError(f"refuses a persistent id: expected only {self._expected}")


@contextlib.contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    """Let the process grow by 64 times the size of a pickle and 1 GiB. One of nine bytes can ask for 32 GB.

    Lists of numbers take some 15 times their size. Only Linux has both the limit and the file that is read here.
    """
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = used + 64 * size + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (bound if soft == resource.RLIM_INFINITY else min(soft, bound), hard))
    except (AttributeError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load_pickle(path: Path, expected: str, stand_ins: Mapping[tuple[str, str], object] | None = None):
    """Load a pickle of plain values.

    Args:
        expected: the expected content, for error messages.
        stand_ins: replacements for names (module, attribute) in the file. A pickle can call them with any arguments and
            set any state on them, so they must be safe to call and refuse state.

    Raises:
        InputError: the file is missing, is not a pickle, or uses another name. No code was run.
    """
    try:
        with open(path, "rb") as file, _bounded_memory(path.stat().st_size):
            return _PlainUnpickler(file, expected, stand_ins or {}).load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a pickle of {expected}") from None
    except Exception as error:  # a damaged file can raise almost any exception
        raise InputError(f"{path} is not a pickle or is damaged: {type(error).__name__}: {error}") from error

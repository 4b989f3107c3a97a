"""What every tool shares: one way to start, and one mapping from errors to exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# A tool runs the package it lies beside, whatever else may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(main: Callable[[], int | None]) -> None:
    """Run a tool's `main` and leave with its exit code; an expected error is one line on stderr, no traceback."""
    from paddle_srgnn.errors import InputError, MissingPaddle, WorkFailed

    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    try:
        code = main() or DONE
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except WorkFailed as error:
        code = _say(name, error, FAILED)
    except (InputError, MissingPaddle) as error:
        code = _say(name, error, BAD_INPUT)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("paddle_srgnn"):
            raise
        code = _say(name, f'{error.name} is not installed: pip install -e ".[cpu]"', BAD_INPUT)
    except OSError as error:
        code = _say(name, error, FAILED if error.errno == errno.ENOSPC else BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        code = _say(name, str(interrupt) or "interrupted", INTERRUPTED)
    sys.exit(code)


def _say(name: str, message: object, code: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return code


def positive_int(text: str) -> int:
    """An argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def log_to(path: Path | None = None) -> logging.Handler:
    """Send the package's log to stderr, or with dates to the end of a file."""
    handler = logging.StreamHandler() if path is None else logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s" if path is None else "%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("paddle_srgnn")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """`log_to` a file for a while."""
    handler = log_to(path)
    try:
        yield
    finally:
        logging.getLogger("paddle_srgnn").removeHandler(handler)
        handler.close()

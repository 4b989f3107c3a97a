"""The command line: `srgnn NAME`, `python -m paddle_srgnn NAME` and, in a clone, `python tools/NAME.py`.

Each command is a module with `main(argv=None) -> int`. It parses, calls the package, prints, and turns errors into exit
codes. It imports the rest of the package only when it works, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError, MissingPaddle, WorkFailed

TITLES = "item titles: a CSV file with a header and the columns raw id and title"
LONGEST = 400  # characters of an error
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "download": "fetch the raw log of a benchmark",
    "preprocess": "turn a click log into a dataset",
    "train": "train a model",
    "evaluate": "rank the test sessions with runs and baselines",
    "recommend": "recommend the next items of sessions",
    "export": "export a run for serving",
    "weights": "import and export weights of other implementations",
    "compare": "compare with another implementation",
}

# Words of the package's messages, and the option or command to use.
HINTS = {
    "a smaller test_days": "--test-days",
    "a larger test_days": "--test-days",
    "a smaller min_item_clicks": "--min-item-clicks",
    "a larger fraction": "--fraction",
    "say which columns": "--columns, --sep",
    "preprocess a log first": "srgnn preprocess",
    "preprocess the log again": "srgnn preprocess",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `srgnn NAME ...`; returns the exit code."""
    is_process, argv = argv is None, sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        code = importlib.import_module(f".{argv[0]}", __name__).main(argv[1:])
        if is_process:
            _ignore_signals()
        return code
    listed = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "srgnn",
        description="SR-GNN for PaddlePaddle: session-based recommendation with graph neural networks.",
        epilog=f"commands:\n{listed}\n\n`srgnn COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    return run(parser, lambda args: None, argv)


def run(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], int | None], argv=None) -> int:
    """Parse the arguments, do the work, and return the exit code; an expected error is one line on stderr.

    `args.argv` holds the arguments as given.
    """
    is_process, argv = argv is None, sys.argv[1:] if argv is None else [str(argument) for argument in argv]
    name = parser.prog.removeprefix("srgnn ")
    with _Signals() as signals:
        try:
            return _run(parser, work, argv, name)
        except BaseException:
            # An interrupted import may raise anything, and Paddle's own code swallows a KeyboardInterrupt.
            if not signals.arrived:
                raise
            return _say(name, "interrupted", INTERRUPTED)
        finally:
            if is_process:
                _ignore_signals()


def _run(parser: argparse.ArgumentParser, work: Callable, argv: list[str], name: str) -> int:
    parser.error = lambda message: argparse.ArgumentParser.error(parser, one_line(message))
    try:
        args = parser.parse_args(argv)
        args.argv = argv
        from ..runtime import log_to

        with log_to():
            code = work(args) or DONE
        sys.stdout.flush()
        return code
    except SystemExit as left:  # argparse's, after --help or bad usage
        return left.code or DONE
    except BrokenPipeError:  # the reader of the output has closed it, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except WorkFailed as error:
        return _say(name, error, FAILED)
    except (InputError, MissingPaddle) as error:
        hints = [hint for words, hint in HINTS.items() if words in str(error)]
        return _say(name, f"{error} ({hints[0]})" if hints else error, BAD_INPUT)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("paddle_srgnn"):
            raise
        return _say(name, f'{error.name} is not installed: pip install "paddle-srgnn[cpu]"', BAD_INPUT)
    except OSError as error:
        return _say(name, error, FAILED if error.errno == errno.ENOSPC else BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        return _say(name, str(interrupt) or "interrupted", INTERRUPTED)


class _Signals:
    """Ctrl-C and SIGTERM as one KeyboardInterrupt: later ones change nothing."""

    def __init__(self) -> None:
        self.arrived, self._before = False, {}

    def __enter__(self) -> _Signals:
        with contextlib.suppress(ValueError):  # not in the main thread, where signals arrive
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)

    def _on_signal(self, *_) -> None:
        if not self.arrived:
            self.arrived = True
            raise KeyboardInterrupt


def _ignore_signals() -> None:
    """For a process whose work is done: an interrupted exit would only change its exit code."""
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _say(name: str, message: object, code: int) -> int:
    print(f"{name}: {one_line(message, LONGEST if code != INTERRUPTED else None)}", file=sys.stderr)
    return code


def one_line(message: object, longest: int | None = LONGEST) -> str:
    """A message with its control characters escaped, and without its middle if it is too long."""
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(message))
    if longest is None or len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]} ... {text[-longest // 3 :]}"


def command(name: str) -> str:
    """How to run a command the way this process was started, for messages on what to do next."""
    script = Path(sys.argv[0])
    in_clone = script.suffix == ".py" and script.parent.name == "tools"
    return f"python {script.with_name(name)}.py" if in_clone else f"srgnn {name}"


def positive_int(text: str) -> int:
    """An argparse type."""
    return _whole_number(text, 1, 2**31 - 1)


def seed(text: str) -> int:
    """An argparse type."""
    return _whole_number(text, 0, 2**63 - 1)


def _threads(text: str) -> int:
    from ..runtime import MOST_THREADS

    return _whole_number(text, 1, MOST_THREADS)


def _whole_number(text: str, first: int, last: int) -> int:
    if not text.isdecimal() or len(text) > 19 or not first <= int(text) <= last:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {first} to {last}")
    return int(text)


def add_machine(parser: argparse.ArgumentParser, device: bool = True) -> None:
    """Add --threads and, where the command can use a GPU, --device."""
    if device:
        parser.add_argument("--device", choices=("cpu", "gpu"), help="default: gpu if there is one, else cpu")
    parser.add_argument("--threads", type=_threads, metavar="N", help="CPU threads (default: one per core)")


def check_folders(*paths: Path | None) -> None:
    """Check before any work is done that the folders of output files exist."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist; create it first")


def check_replaceable(option: str, folder: Path | None, mark: str, force: bool) -> None:
    """Check that an output folder is free, or with --force that the file `mark` shows that this command wrote it."""
    if folder is None or not folder.exists():
        return
    if not force:
        raise InputError(f"{option} {folder} exists already; choose another folder, or pass --force to replace it")
    if not (folder / mark).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{option} {folder} has no {mark}; --force replaces only what this command wrote")

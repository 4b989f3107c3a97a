"""Contenders: measured programs that run in separate processes and take turns.

A process inherits the caller's environment. The caller never calls `runtime.tune()`, so a contender "as installed" runs
untuned; the others call it first. While one contender measures, the others wait, so drift of the machine affects all of
them alike.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from paddle_srgnn.errors import WorkFailed


def timed(call: Callable[[], object], name: str, calls: int = 1, warm_up: int = 0) -> Callable[[], dict]:
    """A function that measures a round: the milliseconds of each call, by name."""
    for _ in range(warm_up):
        call()

    def measure() -> dict[str, list[float]]:
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return {name: times}

    return measure


def in_both_runtimes(name: str, make: str, options: dict[str, Any]) -> list[tuple]:
    """The arguments of a contender as installed, and of the same with our runtime."""
    return [(f"{name}, as installed", make, options, False), (f"{name}, our runtime", make, options, True)]


class Contender:
    """A process that measures rounds on request.

    Args:
        name: the contender's name in the table.
        make: "module:function" in this package. The function takes the options and returns a function that measures one
            round and returns lists of figures by name.
        options: keyword arguments of `make`.
        tuned: whether the process calls `runtime.tune()`.
    """

    def __init__(self, name: str, make: str, options: dict[str, Any], tuned: bool):
        self.name, self.figures, self.memory = name, {}, 0.0
        context = multiprocessing.get_context("spawn")  # a fresh interpreter
        self._connection, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(its_end, make, options, tuned), daemon=True)
        self._process.start()
        its_end.close()
        self._ask()

    def round(self) -> None:
        """Measure one round and keep its figures."""
        figures, self.memory = self._ask()
        for key, values in figures.items():
            self.figures.setdefault(key, []).extend(values)

    def _ask(self):
        try:
            self._connection.send("next")
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise WorkFailed(f"{self.name}: the process exited; see its output above") from None

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, make: str, options: dict[str, Any], tuned: bool) -> None:
    """Run a contender: answer the first message when it is ready, and every other message with a round's figures."""
    os.dup2(2, 1)  # stdout is for results only
    # Ctrl-C reaches all processes, and the caller reports it. A closed connection ends this process.
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        if tuned:
            from paddle_srgnn.runtime import tune

            tune()
        module, function = make.split(":")
        measure_round = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
        connection.recv()
        connection.send(None)
        while True:
            connection.recv()
            figures = measure_round()
            connection.send((figures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))  # MB on Linux


def measure(contenders: Sequence[tuple[str, str, dict, bool]], rounds: int, progress: Callable) -> list[Contender]:
    """Start the contenders, measure them in turn for some rounds, and stop them."""
    started = []
    try:
        for arguments in contenders:
            progress(f"starting {arguments[0]}")
            started.append(Contender(*arguments))
        for number in range(rounds):
            for contender in started:
                progress(f"round {number + 1} of {rounds}: {contender.name}")
                contender.round()
    finally:
        for contender in started:
            contender.close()
    return started


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}

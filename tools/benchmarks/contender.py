"""Contenders: measured programs, each in a process of its own, that take turns.

A process starts with the caller's environment. The caller never calls `runtime.tune()`, so a contender "as installed"
runs untuned; the others call it before anything else. While one contender measures, the others wait for a line on
stdin, so drift of the machine affects all of them alike.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paddle_srgnn.errors import WorkFailed


class Contender:
    """A process that measures a round whenever it is asked to.

    Args:
        name: of the contender, for the table.
        make: "module:function" in this package. The function takes the options and returns a function that measures one
            round and returns lists of figures by name.
        options: JSON values.
        tuned: whether the process calls `runtime.tune()`.
    """

    def __init__(self, name: str, make: str, options: dict[str, Any], tuned: bool):
        self.name, self.figures, self.memory = name, {}, 0.0
        command = [sys.executable, "-m", "benchmarks.contender"]
        # This checkout's package, even if another one is installed.
        paths = [*map(str, Path(__file__).resolve().parents[1:3]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self._ask({"make": make, "options": options, "tuned": tuned})

    def round(self) -> None:
        """Measure one round and keep its figures."""
        answer = self._ask({})
        self.memory = answer["memory"]
        for key, values in answer["figures"].items():
            self.figures.setdefault(key, []).extend(values)

    def _ask(self, question: dict) -> dict:
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkFailed(f"{self.name}: its process ended; see its output above")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def measure(contenders: Sequence[tuple[str, str, dict, bool]], rounds: int, progress: Callable) -> list[Contender]:
    """Start the contenders, let them take turns for some rounds, and end them."""
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


def main() -> None:
    # What a library prints must not be read as an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    if order["tuned"]:
        from paddle_srgnn.runtime import tune

        tune()
    module, function = order["make"].split(":")
    measure_round = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**order["options"])
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        figures = measure_round()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB on Linux
        print(json.dumps({"figures": figures, "memory": memory}), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the whole group; the caller says so
        main()

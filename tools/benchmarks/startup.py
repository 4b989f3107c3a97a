"""Start-up time: `--help` of each tool, and `import paddle_srgnn`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def measure(tools: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each command. The commands take turns."""
    commands = {f"tools/{path.name} --help": [path, "--help"] for path in sorted(tools.glob("[!_]*.py"))}
    commands["import paddle_srgnn"] = ["-c", "import paddle_srgnn"]
    figures = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
            figures[name].append(1e3 * (time.perf_counter() - start))
    return figures

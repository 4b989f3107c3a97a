"""How the scripts here run the package beside them, whether or not it is installed."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def run(script: str) -> None:
    """Run the command of a script's name and leave with its exit code."""
    sys.exit(importlib.import_module(f"paddle_srgnn.cli.{Path(script).stem}").main())

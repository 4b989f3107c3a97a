"""`srgnn download` from a clone, with the package beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_srgnn.cli.download import main

if __name__ == "__main__":
    sys.exit(main())

"""What holds for every tool."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "tools").glob("[!_]*.py"))


@pytest.fixture
def without_paddle(tmp_path) -> dict[str, str]:
    """An environment in which `import paddle` fails as if it were not installed."""
    (tmp_path / "hidden").mkdir()
    absent = "raise ModuleNotFoundError('No module named paddle', name='paddle')\n"
    (tmp_path / "hidden" / "paddle.py").write_text(absent)
    return {"PYTHONPATH": str(tmp_path / "hidden")}


@pytest.mark.parametrize("tool", TOOLS)
def test_help_needs_no_paddle(tool, run_process, without_paddle):
    process = run_process(tool, "--help", **without_paddle)
    assert process.returncode == 0 and process.stdout.startswith("usage:"), process.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_help_imports_nothing_heavy(tool):
    code = f"""
import runpy, sys
sys.path.insert(0, "tools")
sys.argv = ["{tool}.py", "--help"]
try:
    runpy.run_path("tools/{tool}.py", run_name="__main__")
except SystemExit:
    print({{"numpy", "pandas", "paddle", "yaml"}} & set(sys.modules))
"""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert process.stdout.strip().endswith("set()"), process.stdout + process.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_an_unknown_option_is_bad_usage(tool, refused):
    assert "--nonsense" in refused(tool, "--nonsense") or "required" in refused(tool, "--nonsense")


def test_without_paddle_data_is_prepared_and_training_refused(run_process, refused, without_paddle, tmp_path):
    process = run_process("preprocess", "sample", "--out", tmp_path / "sample", **without_paddle)
    assert process.returncode == 0, process.stderr
    line = refused("train", "--data", tmp_path / "sample", "--out", tmp_path / "run", **without_paddle)
    assert "pip install" in line and not (tmp_path / "run").exists()

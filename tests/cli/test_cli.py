"""What holds for every command, and the ways to start one."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_srgnn import __main__, cli
from paddle_srgnn.cli import COMMANDS
from paddle_srgnn.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SHIMS = sorted(path.stem for path in (ROOT / "tools").glob("[!_]*.py"))
HEAVY = {"numpy", "pandas", "paddle", "yaml"}


@pytest.fixture
def without_paddle(tmp_path) -> dict[str, str]:
    """An environment in which `import paddle` fails as if it were not installed."""
    (tmp_path / "hidden").mkdir()
    absent = "raise ModuleNotFoundError('No module named paddle', name='paddle')\n"
    (tmp_path / "hidden" / "paddle.py").write_text(absent)
    return {"PYTHONPATH": str(tmp_path / "hidden")}


def test_every_command_can_be_started_from_a_clone():
    assert set(SHIMS) == {*COMMANDS, "benchmark"}


@pytest.mark.parametrize("name", SHIMS)
def test_help_needs_no_paddle_and_imports_nothing_heavy(name, without_paddle):
    code = f"""
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[0]))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""
    command = [sys.executable, "-c", f"import sys; del sys.argv[0]\n{code}", ROOT / "tools" / f"{name}.py", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, env=without_paddle)
    assert process.returncode == 0 and process.stdout.startswith("usage:"), process.stderr
    allowed = {"yaml"} if name == "train" else set()  # its help lists the recipes' values
    assert set(process.stderr.split()) <= allowed


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_bad_usage(name, refused):
    assert "--nonsense" in refused(name, "--nonsense") or "required" in refused(name, "--nonsense")


def test_without_paddle_data_is_prepared_and_training_refused(run_process, without_paddle, tmp_path):
    process = run_process("preprocess", "sample", "--out", tmp_path / "sample", **without_paddle)
    assert process.returncode == 0, process.stderr
    arguments = ["--data", tmp_path / "sample", "--out", tmp_path / "run"]
    process = run_process("train", *arguments, **without_paddle)
    assert process.returncode == 2 and process.stderr.count("\n") == 1, process.stderr
    assert "pip install" in process.stderr and not (tmp_path / "run").exists()


def test_the_module_runs_a_command():
    command = [sys.executable, "-m", "paddle_srgnn", "train", "--help"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0 and process.stdout.startswith("usage: srgnn train "), process.stderr


def test_help_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: srgnn ") and all(f"  {name} " in text for name in COMMANDS)
    assert __main__.main is cli.main


@pytest.mark.parametrize("argv, message", [([], "required: COMMAND"), (["trian"], "invalid choice: 'trian'")])
def test_without_a_known_command_it_is_bad_usage(capsys, argv, message):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and message in lines[-1] and lines[:-1] == [lines[0]] and lines[0].startswith("usage:")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\nb\x1b[31m\u202e\udcff é", "a\\nb\\x1b[31m\\u202e\\udcff é"),
        ("a" * 5000 + "end", "a" * 266 + " ... " + "a" * 131 + "end"),
    ],
)
def test_an_error_is_one_short_line(capsys, text, shown):
    def work(args):
        raise InputError(text)

    assert cli.run(argparse.ArgumentParser("srgnn try"), work, []) == 2
    assert capsys.readouterr().err == f"try: {shown}\n"


def test_bad_usage_is_short_too(refused):
    line = refused("train", "--epochs", "7" * 5000 + "\x1b")
    assert "\\x1b" in line and "7 ... 7" in line and len(line) < 500


def test_how_to_go_on_is_never_shortened(capsys):
    def work(args):
        raise KeyboardInterrupt("x" * 1000)

    assert cli.run(argparse.ArgumentParser("srgnn try"), work, []) == 130
    assert "x" * 1000 in capsys.readouterr().err

"""The README and the pages beside it: their commands parse, their Python runs, their links lead somewhere."""

from __future__ import annotations

import argparse
import ast
import csv
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paddle_srgnn.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ["README.md", "tools/README.md", "data/README.md", "data/results/README.md"]
PAGES = [*ENGLISH, "README_cn.md"]
OTHER_PROGRAMS = ("pip install", "python -m pytest", "python -c", "echo")
OPTIONAL = {"onnxruntime"}
NOT_RUN = "onnxruntime.InferenceSession"  # marks the block that needs exports of a run


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Every command of the page's shell blocks, one by one."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [part.strip() for line in lines for part in re.split(r" && | \| ", line)]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by how the command starts."""
    found = {f"srgnn {name}": importlib.import_module(f"paddle_srgnn.cli.{name}").parser() for name in COMMANDS}
    found |= {f"python tools/{name}.py": found[f"srgnn {name}"] for name in COMMANDS}
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "tools" / "benchmark.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return found | {"python tools/benchmark.py": benchmark.parser()}


def options(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options, action.choices.values()))
    return found


@pytest.fixture(scope="module")
def followed(run_command, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The folder of a reader who followed the README's block on CSV files, and what each command printed.

    The reader's dataset and run stand in for Diginetica's too.
    """
    folder = tmp_path_factory.mktemp("reader")
    rng, items = np.random.default_rng(0), ["21553", "551", *map(str, range(7000, 7030))]
    rows, printed = [], {}
    for session in range(400):  # walks along a ring of items, over 40 days
        start, day = rng.integers(len(items)), pd.Timestamp("2026-03-01") + pd.Timedelta(hours=2.4 * session)
        for click in range(rng.integers(2, 6)):
            rows.append((f"v{session}", items[(start + click) % len(items)], f"{day + pd.Timedelta(minutes=click)}Z"))
    pd.DataFrame(rows, columns=["visit", "sku", "at"]).to_csv(folder / "clicks.csv", index=False)
    block = next(block for block in blocks("README.md", "sh") if "srgnn preprocess csv" in block)
    for line in block.splitlines():
        given, _, command = line.rpartition(" | ")
        stdin = shlex.split(given)[1].encode() if given else b""
        name, *arguments = shlex.split(command)[1:]
        process = run_command(name, *arguments, cwd=folder, stdin=stdin)
        assert process.returncode == 0, process.stderr
        printed[name] = process.stdout
    (folder / "data" / "diginetica").symlink_to("shop")
    (folder / "runs" / "diginetica").symlink_to("shop")
    return folder, printed


def test_the_block_on_csv_files_ends_with_recommendations(followed):
    _, printed = followed
    assert "V-SKNN" in printed["evaluate"]
    assert '"session": "now"' in printed["recommend"] and '"fallback": null' in printed["recommend"]
    assert '"7000"' in printed["recommend"]  # which follows 551 in every session


@pytest.mark.parametrize(
    ("page", "code"), [(page, block) for page in ENGLISH for block in blocks(page, "python")],
    ids=lambda value: value if value in ENGLISH else "",
)  # fmt: skip
def test_python_blocks_run(page, code, followed, monkeypatch):
    tree = ast.parse(code)
    if NOT_RUN in code:
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in set(names) - OPTIONAL:
                importlib.import_module(name)
            if isinstance(node, ast.ImportFrom):
                assert all(hasattr(importlib.import_module(node.module), alias.name) for alias in node.names)
        return
    monkeypatch.chdir(followed[0])
    exec(compile(tree, page, "exec"), {"__name__": "__main__"})


def test_the_script_from_a_frame_to_recommendations_has_at_most_12_lines():
    script = next(block for block in blocks("README.md", "python") if "dataset_from_frame" in block)
    assert len(script.splitlines()) <= 12
    for step in ("dataset_from_frame", "train", "evaluate", "baselines", "recommend"):
        assert step in script


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    known = parsers()
    for command in commands(page):
        words = shlex.split(command)
        if command.startswith(OTHER_PROGRAMS):
            if command.startswith("python -c"):
                ast.parse(words[2])
            continue
        start = next((start for start in known if command == start or command.startswith(start + " ")), None)
        assert start, f"{page}: a command that nothing checks: {command}"
        known[start].parse_args(words[len(start.split()) :])  # which exits, with a message, on what it does not know


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", re.sub(r"^-{3,}.*$", "", text_of(page), flags=re.MULTILINE)))
    assert named <= set().union(*map(options, parsers().values()))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)]*)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        file = file / "README.md" if file.is_dir() else file
        assert file.is_file(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page}: {target}"


@pytest.mark.parametrize("page", ["README.md", "README_cn.md"])
def test_the_readme_is_short(page):
    assert len(text_of(page).splitlines()) <= 220


def test_the_chinese_readme_says_the_same():
    def without_comments(page: str) -> list[str]:
        both = blocks(page, "sh") + blocks(page, "python")
        return [re.sub(r"\s+#.*$", "", block, flags=re.MULTILINE) for block in both]

    def figures(page: str) -> set[str]:
        return set(re.findall(r"\d+\.\d+", text_of(page)))

    assert without_comments("README_cn.md") == without_comments("README.md")
    assert figures("README_cn.md") == figures("README.md")
    levels = [re.findall(r"^(#+) ", text_of(page), re.MULTILINE) for page in ("README.md", "README_cn.md")]
    assert levels[0] == levels[1]


def test_results_are_those_of_the_files():
    """Every training and baseline of data/results/*.csv is on its page, and the README's figures are too."""
    page = text_of("data/results/README.md")
    for name in ("runs.csv", "baselines.csv"):
        with open(ROOT / "data" / "results" / name, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("P@20"):
                    assert f"{float(row['P@20']):.2f} / {float(row['MRR@20']):.2f}" in page, row
    table = [line for line in text_of("README.md").splitlines() if line.startswith("|") and " / " in line]
    pairs = {pair for line in table for pair in re.findall(r"\d+\.\d+ / \d+\.\d+", line)}
    assert len(pairs) == 21
    assert all(pair in page for pair in pairs)

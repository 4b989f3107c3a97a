"""The house rules that a program can check: sizes, who imports whom, and what library errors never mention."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 400  # lines of a module
OPTIONAL = {"faiss", "onnx", "onnxruntime", "paddle2onnx", "recbole", "torch"}
# A module imports from its own layer and those before it. A name stands for a module or for all of a subpackage.
LAYERS = [
    ["", "errors", "files", "unpickling", "graph", "runtime", "config", "kernels"],  # "" is the package itself
    ["model"],
    ["datasets"],
    ["protocols"],
    ["run"],
    ["evaluation"],
    ["report"],
    ["training"],  # ends with a report
    ["serving", "interop", "comparison"],
    ["cli", "__main__"],
]
OPTION = re.compile(r"(?<![\w-])--[a-z]|tools/")


def name_of(path: Path) -> str:
    """"datasets.clicks" for paddle_srgnn/datasets/clicks.py, "datasets" for its __init__.py, "" for the package."""
    return ".".join(path.relative_to(ROOT / "paddle_srgnn").with_suffix("").parts).removesuffix("__init__").rstrip(".")


PATHS = {name_of(path): path for path in sorted((ROOT / "paddle_srgnn").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def for_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.AST, function: str | None = None) -> Iterator[tuple[ast.Import | ast.ImportFrom, str | None]]:
    """The import statements that run, each with the name of the function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, function
        elif not for_typing_only(node):
            inside = node.name if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
            yield from imports(node, inside)


def imported(name: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """What a statement in a module imports, absolute: "paddle_srgnn.files", "numpy"."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = ["paddle_srgnn", *name.split(".")] if name else ["paddle_srgnn"]
        if PATHS[name].name != "__init__.py":
            package.pop()
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    # A name is a submodule, or something in the module that `from` names.
    full = [f"{base}.{alias.name}" for alias in node.names]
    return [one if one.removeprefix("paddle_srgnn.") in PATHS else base for one in full]


def own_imports(name: str) -> set[str]:
    """The package's modules that a module imports; with "datasets.clicks" also "datasets", which is run first."""
    found = set()
    for node, _ in imports(TREES[name]):
        for target in imported(name, node):
            head, *parts = target.split(".")
            if head == "paddle_srgnn":
                found |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)} or {""}
    around = {name.rpartition(".")[0]} if "." in name else set()  # running already
    return (found & PATHS.keys()) - around - {name}


def layer(name: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if name.partition(".")[0] in names)


@pytest.mark.parametrize("name", PATHS)
def test_a_module_is_not_too_long(name):
    assert len(PATHS[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_every_module_has_a_layer():
    assert {name.partition(".")[0] for name in PATHS} == {name for names in LAYERS for name in names}


@pytest.mark.parametrize("name", PATHS)
def test_imports_point_one_way(name):
    assert not [other for other in sorted(own_imports(name)) if layer(other) > layer(name)]


def test_no_modules_import_each_other_in_a_circle():
    """Modules that import nothing unvisited are taken away until none is left, or only circles and what needs them."""
    left = {name: own_imports(name) for name in PATHS}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not {name: sorted(needed & left.keys()) for name, needed in left.items()}


@pytest.mark.parametrize("name", [name for name in PATHS if name.partition(".")[0] != "cli"])
def test_functions_import_optional_packages_only(name):
    found = []
    for node, function in imports(TREES[name]):
        if function and (name, function) != ("runtime", "import_paddle"):
            found += [f"line {node.lineno}: {one}" for one in imported(name, node) if one.split(".")[0] not in OPTIONAL]
    assert not found


def is_message(node: ast.AST) -> bool:
    """Whether a person is going to read it: a raised error, one that is made to be raised, or a log line."""
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        return re.search(r"(Error|Failed|Missing\w+|Interrupt)$|^(logger|logging|warnings)\.", function) is not None
    return isinstance(node, ast.Raise)


def message_strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The strings in messages, and in the variables that messages are put together from."""
    messages = [node for node in ast.walk(tree) if is_message(node)]
    names = {node.id for message in messages for node in ast.walk(message) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if hasattr(node, "target") else []
        if getattr(node, "value", None) and any(isinstance(one, ast.Name) and one.id in names for one in targets):
            messages.append(node.value)
    for message in messages:
        for node in ast.walk(message):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node


@pytest.mark.parametrize("name", [name for name in PATHS if name.partition(".")[0] not in ("cli", "__main__")])
def test_the_package_does_not_know_its_command_line(name):
    functions = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef)]
    strings = {(node.lineno, node.value) for function in functions for node in message_strings(function)}
    assert not sorted(f"line {line}: {value!r}" for line, value in strings if OPTION.search(value))


def test_the_checks_see_what_they_look_for():
    tree = ast.parse("def f():\n    reason = 'as --x says'\n    raise ValueError(f'{reason} and --y')\n    g('--z')")
    found = {node.value for node in message_strings(tree) if OPTION.search(node.value)}
    assert found == {"as --x says", " and --y"}
    tree = ast.parse("if TYPE_CHECKING:\n    import a\nimport b\ndef f():\n    import c\n")
    assert [(node.names[0].name, function) for node, function in imports(tree)] == [("b", None), ("c", "f")]
    for name, line, expected in [
        ("datasets.clicks", "from ..files import x", "files"),
        ("datasets.clicks", "from .. import files", "files"),
        ("datasets.clicks", "from . import sessions", "datasets.sessions"),
        ("datasets", "from .sessions import x", "datasets.sessions"),
    ]:
        assert imported(name, ast.parse(line).body[0]) == [f"paddle_srgnn.{expected}"]
    assert layer("datasets.clicks") < layer("run") < layer("training.loop")

import json

import pytest

REFERENCE = """
import paddle_srgnn

class SRGNN(paddle_srgnn.SRGNN):
    pass
"""


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "other.py"
    path.write_text(REFERENCE)
    return path


def test_train_compares_contenders_and_the_floor(run_process, reference, tmp_path):
    arguments = ["--reference", reference, "--rounds", 1, "--batch", 64, "--json", tmp_path / "t.json"]
    process = run_process("benchmark", "train", *arguments)
    assert process.returncode == 0, process.stderr
    figures = json.loads((tmp_path / "t.json").read_text())["figures"]
    assert {"ours", "recipe beside the floor", "reference, as installed", "reference, our runtime"} <= set(figures)
    for found in figures.values():
        assert 0 < found["step"]["min"] <= found["step"]["median"] <= found["step"]["max"]
    beside = figures["recipe beside the floor"]
    parts = ("batch", "encoder forward", "scores + loss", "backward", "optimiser")
    assert sum(beside[part]["min"] for part in parts) <= beside["step"]["max"]
    assert "over the floor" in process.stdout


def test_evaluate_passes_over_the_test_set(run_process, reference, tmp_path):
    process = run_process("benchmark", "evaluate", "--reference", reference, "--rounds", 1)
    assert process.returncode == 0, process.stderr
    assert "reference, our runtime" in process.stdout


def test_startup_names_every_tool(run_process, tmp_path):
    process = run_process("benchmark", "startup", "--rounds", 1, "--json", tmp_path / "s.json")
    assert process.returncode == 0, process.stderr
    assert {"tools/train.py --help", "import paddle_srgnn"} <= set(
        json.loads((tmp_path / "s.json").read_text())["figures"]
    )


def test_a_contender_that_fails_is_the_works_failure(run_process, tmp_path):
    (tmp_path / "broken.py").write_text(
        "class SRGNN:\n    def __init__(self, config):\n        raise TypeError('odd')\n"
    )
    process = run_process("benchmark", "train", "--reference", tmp_path / "broken.py", "--rounds", 1)
    assert process.returncode == 1
    assert process.stderr.strip().splitlines()[-1].startswith("benchmark: reference, as installed: its process ended")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--reference", "nowhere.py"], "nowhere.py: no such file"),
        (["evaluate", "--data", "nowhere"], "nowhere"),
        (["graph", "--json", "nowhere/g.json"], "its folder does not exist"),
        (["speed"], "invalid choice"),
    ],
)
def test_bad_input_is_one_clear_line(refused, tmp_path, arguments, message):
    assert message in refused("benchmark", *arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())

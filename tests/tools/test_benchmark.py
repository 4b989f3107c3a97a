"""The benchmarks on the ring: in this process, but for one contender that must run in its own."""

import importlib
import json
from types import SimpleNamespace

import benchmark
import numpy as np
import pytest
from benchmarks import contender, graph, scale, startup, train

from paddle_srgnn.errors import WorkFailed

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


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """Run benchmark.py with its contenders in this process, few steps each; returns what --json holds."""

    def measure(listed, rounds, progress):
        for name, make, options, _ in listed:
            module, function = make.split(":")
            found = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)()
            yield SimpleNamespace(name=name, figures=found, memory=1.0)

    monkeypatch.setattr(contender, "measure", measure)
    monkeypatch.setattr(train, "STEPS", 3)
    monkeypatch.setattr(graph, "SIZES", ((20, 5), (30, 7)))
    monkeypatch.setattr(scale, "RANGES", {"n_items": (40, 80), "length": (2, 4)})
    monkeypatch.setattr(scale, "BASE", {"n_items": 50, "batch": 8, "length": 3, "dim": 4})
    monkeypatch.setattr(scale, "CLICKS", 16)

    def run(what, *arguments):
        assert benchmark.main([what, *map(str, arguments), "--rounds", "1", "--json", str(tmp_path / "f.json")]) == 0
        return json.loads((tmp_path / "f.json").read_text())["figures"]

    return run


def test_train_compares_contenders_and_the_floor(figures, reference, data, capsys):
    found = figures("train", "--reference", reference, "--batch", 16, "--data", data)
    assert {"ours", "recipe and floor", "reference, as installed", "reference, our runtime"} <= set(found)
    for figure in found.values():
        assert 0 < figure["step"]["min"] <= figure["step"]["median"] <= figure["step"]["max"]
    beside = found["recipe and floor"]
    parts = ("batch", "encoder forward", "scores + loss", "backward", "optimiser")
    assert sum(beside[part]["min"] for part in parts) <= beside["step"]["max"]
    assert "over the floor" in capsys.readouterr().out


def test_evaluate_graph_and_scale(figures, reference, data, capsys, tmp_path):
    assert set(figures("evaluate", "--reference", reference, "--data", data)) == {"ours", "reference, our runtime"}
    found = figures("graph", "--reference", reference)
    assert {"20 x 5", "30 x 7", "peak MB"} == set(found["ours, packed"]) == set(found["reference, our runtime"])
    found = figures("scale", "--plot", tmp_path / "scale.png")
    assert [point["value"] for point in found["points"]["length"]] == [2, 4]
    assert (tmp_path / "scale.png").read_bytes()[1:4] == b"PNG"
    assert "on the step" in capsys.readouterr().out


def test_startup_measures_every_tool(tmp_path):
    (tmp_path / "one.py").write_text("")
    found = startup.measure(tmp_path, 1)
    assert set(found) == {"tools/one.py --help", "import paddle_srgnn"}
    assert all(ms > 0 for times in found.values() for ms in times)


def test_a_contender_measures_in_a_process_of_its_own():
    sizes = {"n_items": 50, "batch": 8, "length": 3, "dim": 4}
    (measured,) = contender.measure([("small", "scale:step", sizes, False)], 2, lambda line: None)
    assert len(measured.figures["step"]) == 2 * scale.STEPS and measured.memory > 0


def test_a_contender_that_fails_is_the_works_failure():
    with pytest.raises(WorkFailed, match="broken: the process exited"):
        contender.measure([("broken", "scale:nothing", {}, False)], 1, lambda line: None)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--reference", "nowhere.py"], "nowhere.py: no such file"),
        (["evaluate", "--data", "nowhere"], "nowhere is not a dataset"),
        (["graph", "--json", "nowhere/g.json"], "its folder does not exist"),
        (["speed"], "invalid choice"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert benchmark.main(arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_exponent_of_a_power_law():
    assert scale.exponent([1, 10, 100], [5, 50 * 10, 500 * 100]) == pytest.approx(2)
    assert np.isclose(scale.exponent([1, 4], [3, 6]), 0.5)

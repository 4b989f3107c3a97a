import json
import shutil

import numpy as np
import pytest

from paddle_srgnn.run import Run
from paddle_srgnn.serving.export import PACKAGES


@pytest.fixture
def run(ring_run):
    return ring_run


def test_paddle(run, run_command, tmp_path):
    process = run_command("export", run, "--format", "paddle", "-k", 7, "--out", tmp_path / "out")
    assert process.returncode == 0 and not process.stderr, process.stderr
    assert "ranker.json + ranker.pdiparams: item_seq int64 [B, L] -> item_numbers int64 [B, 7]" in process.stdout
    assert "test sessions of ring" in process.stdout and "99th percentile" in process.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["format"] == "paddle" and manifest["k"] == 7 and manifest["unfinished"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_onnx(run, run_command, tmp_path):
    for package in PACKAGES:
        pytest.importorskip(package, reason='needs the extra "onnx": paddle2onnx, onnx and onnxruntime')
    checkpoint = Run(run).find_checkpoint("last")
    process = run_command("export", checkpoint, "--format", "onnx", "-k", 7, "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("onnx export of") and "[Paddle2ONNX]" not in process.stdout
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "out" / "ranker.onnx")
    numbers, scores = session.run(["item_numbers", "scores"], {"item_seq": np.array([[3, 4, 0], [5, 0, 0]])})
    assert numbers.shape == scores.shape == (2, 7)


def test_vectors_replace_an_earlier_export_by_force(run, run_command, refused, tmp_path):
    """By force only, and nothing but an export."""
    arguments = ["export", run, "--format", "vectors", "--out", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "--force" in refused(*arguments)
    assert "has no manifest.json" in refused(*arguments, "--force")
    (tmp_path / "out" / "manifest.json").write_text("{}")
    assert "--force" in refused(*arguments)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    process = run_command(*arguments, "--force")
    assert process.returncode == 0, process.stderr
    assert "items.npy: float32 [20, 8]" in process.stdout and "inner product" in process.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["items.csv", "items.npy", "manifest.json"]


def test_an_unfinished_run_is_exported_on_demand(stopped_run, run_command, refused, tmp_path):
    arguments = ["export", stopped_run, "--format", "vectors", "--out", tmp_path / "out"]
    said = f"{stopped_run}: the training is unfinished: it was stopped at step 40, in epoch 3 of 6"
    assert refused(*arguments).endswith(f"{said}; finish it, or allow an unfinished run (--unfinished)")
    assert not (tmp_path / "out").exists()
    process = run_command(*arguments, "--unfinished")
    assert process.returncode == 0 and process.stderr.endswith("stopped at step 40, in epoch 3 of 6\n")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["unfinished"] == said.removeprefix(f"{stopped_run}: ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["RUN"], "required"),
        (["RUN", "--format", "tensorrt"], "invalid choice"),
        (["RUN", "--format", "paddle", "-k", "0"], "whole number from 1"),
        (["RUN", "--format", "vectors", "-k", "5"], "-k does not apply"),
        (["nowhere", "--format", "paddle"], "no such run"),
    ],
)
def test_bad_input_is_one_clear_line(run, refused, tmp_path, arguments, message):
    arguments = [run if argument == "RUN" else argument for argument in arguments]
    assert message in refused("export", *arguments, "--out", "out", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_name_the_extra(run, refused, tmp_path):
    line = refused("export", run, "--format", "onnx", "--out", tmp_path / "out", hidden=PACKAGES)
    assert "paddle2onnx" in line and 'pip install "paddle-srgnn[onnx]"' in line
    assert not (tmp_path / "out").exists()


def test_a_diverged_run_is_a_failure(run, run_command, tmp_path):
    """A weight that is not a number, as a damaged training would leave it, hash included."""
    from safetensors.numpy import load_file, save_file

    from paddle_srgnn.files import sha256

    shutil.copytree(run, tmp_path / "run")
    folder = Run(tmp_path / "run").find_checkpoint("last")
    weights = load_file(folder / "model.safetensors")
    weights["item_emb.weight"][7, 3] = np.nan
    save_file(weights, folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    process = run_command("export", tmp_path / "run", "--format", "vectors", "--out", tmp_path / "out")
    assert process.returncode == 1 and "not finite" in process.stderr and "Traceback" not in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.comparison import random_weights
from paddle_srgnn.config import Settings
from paddle_srgnn.evaluation.ranks import ModelScorer
from paddle_srgnn.interop.arrays import write_arrays
from paddle_srgnn.interop.peers import PEERS
from paddle_srgnn.interop.weights import to_theirs
from paddle_srgnn.model import SRGNN
from paddle_srgnn.protocols.paper import Paper

GOLDEN = Path(__file__).parents[1] / "golden"


def test_weights_of_recbole_in_evaluated_and_out_again(ring, data, run_command, refused, tmp_path):
    sizes = {"embedding_dim": 8, "step": 2, "n_items": 21}
    weights = random_weights(sizes)
    write_arrays(tmp_path / "w.npz", to_theirs(PEERS["recbole"], weights))
    arguments = ["--from", "recbole", tmp_path / "w.npz", "--out", tmp_path / "run", "--step", 2]
    process = run_command("weights", "import", *arguments)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("21 items with the padding, which is scored; embedding_dim=8, step=2")

    process = run_command("evaluate", tmp_path / "run", "--data", data, "--json", tmp_path / "r.json")
    assert process.returncode == 0
    assert "dataset is unknown; their items are assumed to be numbered as in ring" in process.stderr
    model = SRGNN(sizes)
    model.set_state_dict(weights)
    expected = Paper().measure(ModelScorer(model, Settings()), ring.test, (5, 10, 20)).metrics
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["metrics"] == pytest.approx(expected)
    assert "trained on unknown data without a folder" in refused("evaluate", tmp_path / "run")
    assert "without an optimizer's state to resume from" in refused("train", "--out", tmp_path / "run", "--resume")

    process = run_command("weights", "export", "--to", "authors-pytorch", tmp_path / "run", "--out", tmp_path / "a.npz")
    assert process.returncode == 0 and process.stdout == f"weights: {tmp_path / 'a.npz'}\n"
    assert "never scores the padding item 0" in process.stderr
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["gnn.w_hh"][8:16], -weights["gnn.w_hh"][:, 8:16].T)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_bad_input_is_one_clear_line_and_runs_nothing(refused, tmp_path):
    def said(*arguments: object) -> str:
        return refused("weights", *arguments, cwd=tmp_path)

    (tmp_path / "trap.pdparams").write_bytes(pickle.dumps({"item_emb.weight": Trap()}))
    assert "refuses posix.mkdir" in said("import", "--from", "datawhale", "trap.pdparams", "--out", "run")
    recbole = GOLDEN / "peers" / "recbole.npz"
    assert "its folder does not exist" in said("import", "--from", "recbole", recbole, "--out", "nowhere/run")
    assert "invalid choice" in said("import", "--from", "torch", recbole, "--out", "run")
    assert "whole number from 1" in said("import", "--from", "recbole", recbole, "--out", "run", "--step", "0")
    assert [path.name for path in tmp_path.iterdir()] == ["trap.pdparams"]


def test_a_full_disk_is_one_line_with_the_path(ring_run, run_command, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("paddle_srgnn.interop.arrays.save_file", full)
    file = tmp_path / "w.safetensors"
    process = run_command("weights", "export", "--to", "recbole", ring_run, "--out", file)
    assert process.returncode == 1 and process.stderr == f"weights: [Errno 28] No space left on device: '{file}'\n"
    assert not list(tmp_path.iterdir())


def test_help_tells_how_to_make_an_npz(run_command):
    process = run_command("weights", "import", "--help")
    assert "numpy.savez('FILE.npz', **{k: v.numpy()" in process.stdout and "['state_dict']" in process.stdout

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def ring_weights(data, run_tool, tmp_path_factory) -> tuple[Path, Path]:
    """A run trained on the ring, and its weights as RecBole keeps them."""
    folder = tmp_path_factory.mktemp("weights")
    small = [f"--set={change}" for change in ("embedding_dim=8", "batch_size=32", "score_item_zero=true")]
    assert run_tool("train", "--data", data, *small, "--epochs", 1, "--out", folder / "run").returncode == 0
    process = run_tool("weights", "export", "--to", "recbole", folder / "run", "--out", folder / "w.npz")
    assert process.returncode == 0 and process.stdout == f"weights: {folder / 'w.npz'}\n" and not process.stderr
    return folder / "run", folder / "w.npz"


def test_an_imported_run_is_evaluated_as_the_one_it_came_from(ring_weights, data, run_tool, refused, tmp_path):
    trained, file = ring_weights
    process = run_tool("weights", "import", "--from", "recbole", file, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("21 items with the padding, which is scored; embedding_dim=8, step=1")
    evaluated = run_tool("evaluate", trained, tmp_path / "run", "--data", data)
    assert evaluated.returncode == 0
    first, second = (line.split()[1:] for line in evaluated.stdout.splitlines()[-2:])
    assert first == second
    assert "imported weights, whose dataset is unknown; their items are taken to be numbered as in ring" in (
        evaluated.stderr
    )
    assert "does not fit sample: 21 items against 1001" in refused("evaluate", tmp_path / "run", "--data", "sample")
    assert "dataset is unknown; name with --data" in refused("evaluate", tmp_path / "run")
    assert "without an optimiser's state to go on from" in refused("train", "--out", tmp_path / "run", "--resume")


def test_export_speaks_of_item_zero(ring_weights, run_tool, tmp_path):
    process = run_tool("weights", "export", "--to", "authors-pytorch", ring_weights[0], "--out", tmp_path / "w.npz")
    assert process.returncode == 0 and "never scores the padding item 0" in process.stderr
    with np.load(tmp_path / "w.npz") as file:
        assert file["gnn.w_ih"].shape == (24, 16) and "gnn.linear_edge_f.bias" in file


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_bad_input_is_one_clear_line_and_runs_nothing(refused, tmp_path):
    def said(*arguments: object) -> str:
        return refused("weights", *arguments, cwd=tmp_path)

    (tmp_path / "trap.pdparams").write_bytes(pickle.dumps({"item_emb.weight": Trap()}))
    assert "refuses posix.mkdir" in said("import", "--from", "datawhale", "trap.pdparams", "--out", "run")
    recbole = GOLDEN / "peers" / "recbole.npz"  # with inputs and outputs among the weights
    assert "item_embedding.weight: missing" in said("import", "--from", "recbole", recbole, "--out", "run")
    assert "no such run" in said("export", "--to", "recbole", "nowhere", "--out", "w.npz")
    assert "its folder does not exist" in said("import", "--from", "recbole", recbole, "--out", "nowhere/run")
    assert "invalid choice" in said("import", "--from", "torch", recbole, "--out", "run")
    assert "whole number from 1" in said("import", "--from", "recbole", recbole, "--out", "run", "--step", "0")
    assert [path.name for path in tmp_path.iterdir()] == ["trap.pdparams"]


def test_help_tells_how_to_make_an_npz(run_tool):
    process = run_tool("weights", "import", "--help")
    assert "numpy.savez('FILE.npz', **{k: v.numpy()" in process.stdout and "['state_dict']" in process.stdout

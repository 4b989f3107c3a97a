import shlex

import pytest

import paddle_srgnn
from paddle_srgnn.cli.train import parse_changes
from paddle_srgnn.config import load_recipe
from paddle_srgnn.files import sha256
from paddle_srgnn.report.reproduction import Origin, origin_of, train_command
from paddle_srgnn.run import Run

CHANGES = {"seed": 3, "lr_decay_after": "", "eval_every_epoch": "true", "learning_rate": "1e-5"}


def origin(recipe="paper", path="/data/a b", environment=None, changes=None) -> Origin:
    dataset = {"name": "x", "path": path, "hash": "0"}
    return Origin("run", 2, "0", recipe, environment or {}, load_recipe("paper", changes), dataset, [])


def test_the_origin_of_a_run(ring_run, data, ring):
    run = Run(ring_run)
    found = origin_of(run)
    assert (found.checkpoint, found.epoch, found.recipe) == (run.find_checkpoint(), 6, "paper")
    assert found.weights == sha256(run.find_checkpoint() / "model.safetensors")
    assert found.dataset == {"name": "ring", "path": str(data), "hash": ring.hash, "protocol": "sessions"}
    assert found.environment == run.environment and found.history == run.metrics


@pytest.mark.parametrize("changes", [{}, CHANGES])
@pytest.mark.parametrize("recipe", ["paper", "strong", "mine.yaml"])
def test_the_command_gives_the_same_settings(recipe, changes):
    found = origin(recipe, changes=changes, environment={"device": "cpu", "threads": 2})
    words = shlex.split(train_command(found))
    base = "paper" if recipe == "mine.yaml" else recipe  # the file may be another one by now
    assert words[:6] == ["srgnn", "train", "--data", "/data/a b", "--recipe", base]
    given = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    assert load_recipe(base, parse_changes(given)) == found.settings
    if base == "paper":
        assert len(given) <= len(changes)  # what the recipe says already is not said again
    assert words[-4:] == ["--device", "cpu", "--threads", "2"]


def test_imported_weights_and_data_in_memory_have_no_command(ring, tmp_path):
    assert train_command(origin(path=None)) is None
    run = paddle_srgnn.train(ring, out=tmp_path / "run", embedding_dim=4, epochs=1)
    assert "a dataset without a folder" in (run.folder / "report.html").read_text()

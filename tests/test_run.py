import json
import os
import shutil

import numpy as np
import pytest

from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import InputError
from paddle_srgnn.run import Progress, Run, describe_dataset, find_runs


def test_a_run_knows_its_settings_metrics_dataset_and_checkpoint(ring_run, ring):
    run = Run(ring_run)
    assert run.recipe == "paper" and run.settings.embedding_dim == 8
    assert (run.dataset["name"], run.dataset["hash"], run.dataset["protocol"]) == ("ring", ring.hash, "sessions")
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3, 4, 5, 6] and run.metrics[-1]["test_P@20"] == 100
    assert "test_P@20" not in run.metrics[0]  # what was not measured is left out
    assert run.environment["device"] == "cpu"
    assert run.is_finished and run.reported_epoch == 6
    item_ids, item_clicks = run.items()
    assert item_ids == ring.item_ids and np.array_equal(item_clicks, ring.item_clicks)
    assert run.load_dataset().hash == ring.hash
    assert run.recommender().recommend(["101", "102"], k=1).items == ("103",)


def test_a_checkpoint_stands_for_its_run(ring_run, monkeypatch):
    """By any path: also one from inside checkpoints/, whose text has no two parents."""
    checkpoint = Run(ring_run).find_checkpoint()
    monkeypatch.chdir(checkpoint.parent)
    for path in (checkpoint, checkpoint.name, os.path.relpath(checkpoint, "/")):
        if path == os.path.relpath(checkpoint, "/"):
            monkeypatch.chdir("/")
        run = Run(path)
        assert run.recipe == "paper" and len(run.items()[0]) == 21 and run.name == str(path)
        assert run.folder.resolve() == ring_run.resolve()


def test_a_checkpoint_alone_has_weights_but_no_items(ring_run, tmp_path):
    shutil.copytree(Run(ring_run).find_checkpoint(), tmp_path / "alone")
    run = Run(tmp_path / "alone")
    assert run.recipe == "" and run.environment == {} and run.model().n_items == 21
    assert [row["epoch"] for row in run.metrics] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"items\.csv: missing"):
        run.items()


def test_a_run_that_was_stopped_is_not_finished(ring_run, tmp_path):
    shutil.copytree(ring_run, tmp_path / "run")
    path = Run(tmp_path / "run").find_checkpoint() / "state.json"
    state = json.loads(path.read_text())
    state["progress"]["epoch"] = 3
    path.write_text(json.dumps(state))
    assert not Run(tmp_path / "run").is_finished


def test_a_setting_that_was_removed_is_ignored_in_older_runs(ring_run, tmp_path):
    shutil.copytree(ring_run, tmp_path / "run")
    config, state = tmp_path / "run" / "config.yaml", Run(tmp_path / "run").find_checkpoint() / "state.json"
    config.write_text(config.read_text().replace("settings:\n", "settings:\n  num_workers: 2\n"))
    stored = json.loads(state.read_text())
    stored["settings"]["num_workers"] = 2
    state.write_text(json.dumps(stored))
    run = Run(tmp_path / "run")
    assert run.settings == run.checkpoint().settings == Run(ring_run).settings
    assert "num_workers" in config.read_text() and run.model().n_items == 21
    with pytest.raises(InputError, match="unknown setting 'num_workers'"):
        load_recipe("paper", {"num_workers": 2})


def test_training_is_finished_after_its_epochs_or_by_patience():
    settings = load_recipe("paper", {"epochs": 3})
    assert [Progress(epoch=epoch).is_finished(settings) for epoch in (1, 3, 4)] == [False, False, True]
    early = load_recipe("paper", {"epochs": 9, "patience": 2, "valid_fraction": 0.1})
    waited = [Progress(epoch=epoch, best_epoch=2).is_finished(early) for epoch in (3, 4, 5)]
    assert waited == [False, False, True]  # epochs 3 and 4 are done and no better than 2


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: BOMB + text, "line 2: found an alias"),
        (lambda text: text + "day: 2026-99-99\n", "cannot be read as YAML"),
        (lambda text: text.replace("seed: 0", "seed: " + "7" * 5000), "cannot be read as YAML"),
        (lambda text: text + "x: " + "[" * 30 + "]" * 30 + "\n", "more than 20 nested levels"),
        (lambda text: text + "x: " + "[" * 3000 + "]" * 3000 + "\n", "nest"),
        (lambda text: text + "x: " + "y" * (1 << 20) + "\n", "longer than 1,048,576 bytes"),
        (lambda text: text + "\0", "cannot be read as YAML"),
        (lambda text: text + "é", "cannot be read as YAML"),
        (lambda text: text + "x: !!int ''\n", "cannot be read as YAML"),
        (lambda text: text + "x: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        (lambda text: "[]", "expected a mapping"),
        (lambda text: text.replace("settings:", "settings: []\nx:"), "settings: found []; expected dict"),
        (lambda text: text.replace("  path: ", "  path: 1\n  x: "), "path: found 1; expected str or nothing"),
        (lambda text: text.replace("environment:", "environment: x\ny:"), "environment: found 'x'; expected dict"),
        (lambda text: text.replace("recipe:", "recipes:"), "recipe: missing; expected str"),
        (lambda text: text.replace("seed: 0", "seed: " + "z" * 5000), "expected a whole number"),
        (lambda text: text.replace("  seed: 0", "  ? [1, 2]\n  : 0"), "cannot be read as YAML"),
        (lambda text: text.replace("  seed: 0", "  12: 0"), "unknown setting 12; known"),
    ],
)
def test_a_damaged_config_is_refused_in_one_line(ring_run, tmp_path, damage, message):
    shutil.copytree(ring_run, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    encoding = "latin-1" if damage("").endswith("é") else "utf-8"
    path.write_text(damage(path.read_text()), encoding=encoding)
    with pytest.raises(InputError) as error:
        Run(tmp_path / "run").config  # noqa: B018
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("path, message", [("nowhere", "no such run"), (".", "no checkpoint here")])
def test_what_is_no_run_is_refused(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        Run(path).checkpoint()


@pytest.mark.parametrize("content", ["epoch,loss\n1,low\n", "loss\n1\n", "epoch\ninf\n", "epoch\n" + "1" * 200_000])
def test_damaged_metrics_are_refused(ring_run, tmp_path, content):
    shutil.copytree(ring_run, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv: damaged"):
        Run(tmp_path / "run").metrics  # noqa: B018


def test_the_dataset_is_described_by_what_it_can_be_loaded_from(ring):
    assert describe_dataset(ring)["path"] is None  # only in memory, and not the embedded sample


def test_runs_are_found_in_order(tmp_path):
    for name in ("b/a-10", "b/a-2", "c"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    assert find_runs(tmp_path) == [tmp_path / name for name in ("b/a-2", "b/a-10", "c")]
    assert find_runs(tmp_path / "c") == [tmp_path / "c"]

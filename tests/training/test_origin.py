import shlex

import pytest
import yaml

from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import InputError
from paddle_srgnn.report.reproduction import Origin, train_command
from paddle_srgnn.files import sha256
from paddle_srgnn.training.checkpoint import last_checkpoint, read_checkpoint
from paddle_srgnn.training.origin import origin_of
from paddle_srgnn.run import find_runs


def origin(recipe="paper", path="/data/a b", environment=None, changes=()) -> Origin:
    dataset = {"name": "x", "path": path, "hash": "0"}
    settings = load_recipe(recipe if recipe != "imported" else "paper", changes)
    return Origin("run", 2, "0", recipe, environment or {}, settings, dataset, [])


def test_the_origin_of_a_run(ring_run, data, ring):
    folder = last_checkpoint(ring_run)
    found = origin_of(read_checkpoint(folder))
    assert (found.checkpoint, found.epoch, found.recipe) == (folder, 6, "paper")
    assert found.weights == sha256(folder / "model.safetensors")
    assert found.dataset == {"name": "ring", "path": str(data), "hash": ring.hash}
    assert found.environment == yaml.safe_load((ring_run / "config.yaml").read_text())["environment"]
    assert [row["epoch"] for row in found.history] == [1, 2, 3, 4, 5, 6]
    assert "test_P@20" in found.history[5] and "test_P@20" not in found.history[4]


def test_a_checkpoint_alone_knows_what_it_holds_itself(ring_run, tmp_path):
    import shutil

    folder = shutil.copytree(last_checkpoint(ring_run), tmp_path / "copy")
    found = origin_of(read_checkpoint(folder))
    assert (found.recipe, found.environment, found.epoch, len(found.history)) == ("", {}, 6, 6)
    assert train_command(found) is None


def test_damaged_metrics_are_named(ring_run, tmp_path):
    import shutil

    run = shutil.copytree(ring_run, tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,loss\n1,low\n")
    with pytest.raises(InputError, match=r"metrics\.csv: damaged"):
        origin_of(read_checkpoint(last_checkpoint(run)))


@pytest.mark.parametrize("changes", [[], ["seed=3", "lr_decay_after=", "eval_every_epoch=true", "learning_rate=1e-5"]])
@pytest.mark.parametrize("recipe", ["paper", "strong"])
def test_the_command_gives_the_same_settings(recipe, changes):
    words = shlex.split(train_command(origin(recipe, changes=changes, environment={"device": "cpu", "threads": 2})))
    assert words[:6] == ["python", "tools/train.py", "--data", "/data/a b", "--recipe", recipe]
    given = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
    assert len(given) <= len(changes)  # what the recipe says already is not said again
    assert load_recipe(recipe, given) == load_recipe(recipe, changes)
    assert words[-4:] == ["--device", "cpu", "--threads", "2"]


def test_imported_weights_have_no_command():
    assert train_command(origin("imported")) is None and train_command(origin(path=None)) is None


def test_a_folder_stands_for_its_runs_in_order_of_name(tmp_path):
    for name in ("a-10", "a-2", "seeds/seed-1", "seeds/seed-0", ".a-3.tmp", "other/deep/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").touch()
    names = [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)]
    assert names == ["a-2", "a-10", "b", "seeds/seed-0", "seeds/seed-1"]
    for itself in (tmp_path / "a-2", tmp_path / "nowhere", tmp_path / "file", tmp_path / "other" / "deep" / "run"):
        assert find_runs(itself) == [itself]

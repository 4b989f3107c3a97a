"""`train()` does what the command does, bit for bit."""

import pytest
import yaml

import paddle_srgnn
from paddle_srgnn.errors import InputError
from paddle_srgnn.run import Run

SMALL = {"embedding_dim": 8, "batch_size": 32, "epochs": 2}


def test_it_writes_the_folder_that_the_command_writes(data, run_command, tmp_path, caplog):
    run = paddle_srgnn.train(data, out=tmp_path / "api", **SMALL)
    assert isinstance(run, Run) and run.folder == tmp_path / "api" and run.is_finished
    assert "epoch 2/2" in caplog.text
    changes = [f"--set={key}={value}" for key, value in SMALL.items()]
    process = run_command("train", "--data", data, *changes, "--out", tmp_path / "command")
    assert process.returncode == 0, process.stderr
    folders = tmp_path / "api", tmp_path / "command"
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in folders]
    assert names[0] == names[1] and "report.html" in names[0]
    for name in names[0]:
        ours, theirs = (folder / name for folder in folders)
        if (ours.is_file() and ours.suffix in (".safetensors", "")) or ours.name in ("items.csv", "config.yaml"):
            assert ours.read_bytes() == theirs.read_bytes(), name
    timed = ("seconds", "samples_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timed} for row in Run(folder).metrics] for folder in folders]
    assert rows[0] == rows[1]


def test_a_dataset_in_memory_is_trained_on_and_resumed_with(ring, tmp_path):
    run = paddle_srgnn.train(ring, out=tmp_path / "run", **SMALL)
    assert run.metrics[-1]["test_P@20"] == paddle_srgnn.evaluate(run).metrics["P@20"] > 0  # the run knows its dataset
    with pytest.raises(InputError, match="without a folder"):
        paddle_srgnn.evaluate(run.folder)
    with pytest.raises(InputError, match="pass the dataset"):
        paddle_srgnn.train(out=tmp_path / "run", resume=True)
    longer = paddle_srgnn.train(ring, out=tmp_path / "run", resume=True, epochs=3)
    assert longer.reported_epoch == 3
    whole = paddle_srgnn.train(ring, out=tmp_path / "whole", **SMALL | {"epochs": 3})
    weights = [(one.find_checkpoint() / "model.safetensors").read_bytes() for one in (longer, whole)]
    assert weights[0] == weights[1]


def test_without_the_test_set_it_reports_on_validation(ring, tmp_path):
    run = paddle_srgnn.train(ring, out=tmp_path / "run", test=False, valid_fraction=0.2, **SMALL)
    assert all("valid_P@20" in row and "test_P@20" not in row for row in run.metrics)


def test_a_recipe_can_be_a_file_of_ones_own(ring, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SMALL | {"learning_rate": 0.02}))
    run = paddle_srgnn.train(ring, recipe=str(tmp_path / "mine.yaml"), out=tmp_path / "run", epochs=1)
    assert (run.settings.embedding_dim, run.settings.learning_rate, run.settings.epochs) == (8, 0.02, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"embeding_dim": 8}, "unknown setting 'embeding_dim'; did you mean 'embedding_dim'"),
        ({"embedding_dim": 0}, "must be at least 1"),
        ({"recipe": "papr"}, "unknown recipe 'papr'; did you mean 'paper'"),
        ({"data": "nowhere"}, "nowhere"),
        ({"resume": True}, "name its folder"),
        ({"test": False}, "set valid_fraction"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        paddle_srgnn.train(**arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused(ring, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        paddle_srgnn.train(ring, out=tmp_path)

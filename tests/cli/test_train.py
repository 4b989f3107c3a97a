import csv
import json
import shutil
import signal
import time

import pytest
import yaml

from paddle_srgnn.datasets.sessions import write_dataset
from paddle_srgnn.run import Run

SMALL = [f"--set={change}" for change in ("embedding_dim=8", "batch_size=32", "epochs=3", "save_every_steps=4")]


@pytest.fixture(scope="module")
def finished(data, run_command, tmp_path_factory):
    """A run that was never interrupted."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    process = run_command("train", "--data", data, *SMALL, "--out", run)
    assert process.returncode == 0, process.stderr
    return run, process


def weights(run) -> bytes:
    return (Run(run).find_checkpoint("last") / "model.safetensors").read_bytes()


def test_it_prints_the_settings_once_and_the_metrics_at_the_end(finished):
    run, process = finished
    assert process.stderr.count("embedding_dim=8") == 1
    table = process.stdout.splitlines()
    assert table[0].split() == ["P@5", "MRR@5", "NDCG@5", "P@10", "MRR@10", "NDCG@10", "P@20", "MRR@20", "NDCG@20"]
    assert "paper, epoch 3" in table[2] and table[-2:] == [f"report: {run / 'report.html'}", f"run: {run}"]


def test_a_runs_folder_says_everything_about_it(finished, data):
    run, _ = finished
    expected = {"config.yaml", "items.csv", "metrics.csv", "train.log", "report.html", "checkpoints"}
    assert {path.name for path in run.iterdir()} == expected
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["recipe"] == "paper" and config["settings"]["embedding_dim"] == 8
    assert config["dataset"]["path"] == str(data) and len(config["dataset"]["hash"]) == 64
    assert {"versions", "device", "threads", "git_revision"} <= set(config["environment"])
    assert (run / "items.csv").read_bytes() == (data / "items.csv").read_bytes()
    assert "embedding_dim=8" in (run / "train.log").read_text()
    page = (run / "report.html").read_text()
    with open(run / "metrics.csv") as file:
        assert f">{float(list(csv.DictReader(file))[-1]['test_MRR@20']):.2f}<" in page
    assert "Where it is right" in page and "--set embedding_dim=8" in page


def test_without_out_a_new_folder_is_found(data, run_command, tmp_path):
    for n in (1, 2):
        process = run_command("train", "--data", data, *SMALL, "--epochs", 1, cwd=tmp_path)
        assert process.stdout.strip().endswith(f"run: runs/ring-paper-{n}")
    assert Run(tmp_path / "runs" / "ring-paper-2").find_checkpoint("last").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    finished, data, run_command, start_process, tmp_path, number
):
    run = tmp_path / "run"
    process = start_process("train", "--data", data, *SMALL, "--epochs", "100000", "--out", run)
    deadline = time.monotonic() + 60
    while not (run / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors and errors.strip().splitlines()[-1].endswith(f"--out {run} --resume")
    assert Run(run).checkpoint("last").progress.step > 0
    if Run(run).checkpoint("last").progress.epoch <= 3:
        process = run_command("train", "--out", run, "--resume", "--epochs", 3)
        assert process.returncode == 0, process.stderr
        assert weights(run) == weights(finished[0])


DYING = """
import os, signal
from paddle_srgnn.training import checkpoint
left = {at}
def dying(function, half):
    def call(*args):
        global left
        left -= 1
        if left == 0:
            half(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return call
if "{kind}" == "rename":
    os.replace = dying(os.replace, lambda *args: None)
else:
    half = lambda tensors, path: open(path, "wb").write(b"half")
    checkpoint.save_file = dying(checkpoint.save_file, half)
"""


@pytest.mark.parametrize("kind, at", [("rename", n) for n in (3, 8, 9, 14)] + [("save", n) for n in (3, 6)])
def test_killed_while_it_writes_it_goes_on_to_the_same_bytes(
    finished, data, run_command, start_process, tmp_path, kind, at
):
    """Killed before the first checkpoint has a name, between a folder and its name, and inside a half-written file."""
    run = tmp_path / "run"
    first = DYING.format(kind=kind, at=at)
    process = start_process("train", "--data", data, *SMALL, "--out", run, first=first)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    process = run_command("train", "--out", run, "--resume")
    assert process.returncode == 0, process.stderr
    assert weights(run) == weights(finished[0])
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert left == {"last", Run(run).find_checkpoint("last").name}


def test_resuming_takes_the_runs_settings(finished, refused):
    run, _ = finished
    assert "recipe paper" in refused("train", "--out", run, "--resume", "--recipe", "datawhale")
    assert "batch_size=32" in refused("train", "--out", run, "--resume", "--set", "batch_size=64")
    assert "seed=0" in refused("train", "--out", run, "--resume", "--seed", 4)
    assert "needs --out" in refused("train", "--resume")
    assert "needs --out" in refused("train", "--resume", "--seeds", 1, 2)


def test_a_run_is_not_resumed_to_an_epoch_before_its_own(finished, refused, tmp_path):
    """Its weights would be reported as those of an earlier epoch."""
    shutil.copytree(finished[0], tmp_path / "run")
    resume = ("train", "--out", tmp_path / "run", "--resume", "--epochs")
    assert "epochs=2: 3 epochs are done; choose at least 3" in refused(*resume, 2)
    path = Run(tmp_path / "run").find_checkpoint("last") / "state.json"
    state = json.loads(path.read_text())
    state["progress"] |= {"epoch": 2, "steps_in_epoch": 4}
    path.write_text(json.dumps(state))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert "epochs=1: 1 epochs are done and epoch 2 is under way; choose at least 2" in refused(*resume, 1)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_a_damaged_best_is_refused_before_it_is_resumed(finished, refused, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best").write_bytes(b"\xff")
    assert "best: names" in refused("train", "--out", tmp_path / "run", "--resume", "--epochs", 4)


def test_a_run_in_training_is_not_resumed_by_another(data, start_process, refused, tmp_path):
    run = tmp_path / "run"
    process = start_process("train", "--data", data, *SMALL, "--epochs", "100000", "--out", run)
    deadline = time.monotonic() + 60
    while not (run / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    message = refused("train", "--out", run, "--resume")
    assert f"{run} is being trained by another process (pid {process.pid})" in message
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130, errors


def test_the_length_of_a_cosine_cannot_change_under_way(data, run_command, refused, tmp_path):
    run = tmp_path / "run"
    process = run_command("train", "--data", data, *SMALL, "--set", "lr_schedule=cosine", "--epochs", 1, "--out", run)
    assert process.returncode == 0, process.stderr
    assert "cosine over 1 epochs" in refused("train", "--out", run, "--resume", "--epochs", 2)


def test_several_seeds_give_their_mean_and_deviation_and_go_on_together(finished, data, run_command, refused, tmp_path):
    folder = tmp_path / "runs"
    command = ("train", "--data", data, *SMALL, "--out", folder, "--seeds")
    process = run_command(*command, 1)
    assert process.returncode == 0, process.stderr
    assert "mean" in process.stdout and "deviation" not in process.stdout
    assert "exists already" in refused(*command, 0, 1)
    assert "twice" in refused("train", "--data", data, "--seeds", 2, 2)
    process = run_command(*command, 0, 1, "--resume")  # seed 1 is finished, seed 0 is not begun
    assert process.returncode == 0, process.stderr
    assert weights(folder / "seed-0") == weights(finished[0])
    lines = [line.split() for line in process.stdout.splitlines()]
    assert process.stdout.splitlines()[-1] == f"runs: {folder}"
    with open(folder / "seeds.csv") as file:
        rows = {row["seed"]: float(row["MRR@20"]) for row in csv.DictReader(file)}
    one, other = rows["0"], rows["1"]
    assert one != other
    assert rows["mean"] == pytest.approx((one + other) / 2)
    assert rows["standard deviation"] == pytest.approx(abs(one - other) / 2**0.5)
    assert [line[2:][7] for line in lines if line[:1] == ["seed"]] == [f"{one:.2f}", f"{other:.2f}"]
    logs = [(folder / f"seed-{seed}" / "train.log").read_text() for seed in (0, 1)]
    assert ["seed=0" in log for log in logs] == [True, False] and "seed=1" in logs[1]
    figures = [f">{value:.2f}<" for value in (one, other)]
    for page, shown in {"report.html": [1, 1], "seed-0/report.html": [1, 0], "seed-1/report.html": [0, 1]}.items():
        text = (folder / page).read_text()
        assert [figure in text for figure in figures] == list(map(bool, shown))


def test_settings_can_be_compared_without_the_test_set(data, run_command, refused, tmp_path):
    run = tmp_path / "run"
    process = run_command("train", "--data", data, *SMALL, "--set", "valid_fraction=0.2", "--no-test", "--out", run)
    assert process.returncode == 0, process.stderr
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert not [key for key in rows[0] if key.startswith("test")]
    line = process.stdout.splitlines()[2].split()
    assert line[:4] == ["validation,", "paper,", "epoch", "3"]
    assert line[4] == f"{float(rows[2]['valid_P@5']):.2f}"
    page = (run / "report.html").read_text()
    assert "ring · valid" in page and f">{line[4]}<" in page and "Where it is right" not in page
    assert "set valid_fraction" in refused("train", "--data", data, "--no-test")
    assert "needs the test set" in refused(
        "train", "--data", data, "--no-test", "--set", "valid_fraction=0.2", "--set", "eval_every_epoch=true"
    )


def test_resuming_on_other_data_is_refused(finished, ring, refused, tmp_path):
    import dataclasses

    write_dataset(dataclasses.replace(ring, train=ring.train.split_recent(0.5)[0]), tmp_path / "other")
    assert "not the dataset" in refused("train", "--out", finished[0], "--resume", "--data", tmp_path / "other")


def test_an_existing_run_is_never_overwritten(finished, data, refused):
    before = weights(finished[0])
    assert "exists already" in refused("train", "--data", data, *SMALL, "--out", finished[0])
    assert weights(finished[0]) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--recipe", "papre"], "did you mean 'paper'"),
        (["--set", "epoch=3"], "did you mean 'epochs'"),
        (["--set", "num_workers=2"], "unknown setting 'num_workers'"),
        (["--set", "batch_size=big"], "expected a whole number"),
        (["--set", "nothing"], "expected key=value"),
        (["--epochs", "0"], "whole number from 1"),
        (["--seed", str(2**70)], "is not a whole number from 0 to 9223372036854775807"),
        (["--set", f"seed={2**70}"], "must be at most 9223372036854775807"),
        (["--seeds", "1", "-1"], "-1 is not a whole number"),
        (["--threads", str(10**12)], "is not a whole number from 1 to 1024"),
        (["--set", f"max_session_length={10**30}"], "must be at most 1000000"),
        (["--set", "embedding_dim=1000000000"], "must be at most 65536"),
        (["--set", "embedding_dim=65536"], "the model and the optimizer need 1,030.8 GB, a batch of scores 0.0 GB"),
        (["--data", "nowhere"], "nowhere"),
        (["--resume", "--out", "nowhere"], "nowhere: not a run"),
        (["--set", "valid_fraction=0.0001"], "share"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(refused, data, tmp_path, arguments, message):
    arguments = arguments if "--data" in arguments else ["--data", data, *arguments]
    assert message in refused("train", *arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(refused, data, tmp_path):
    import paddle

    if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    assert "use the cpu" in refused("train", "--data", data, "--device", "gpu", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_altered_dataset_is_refused(ring, refused, tmp_path):
    write_dataset(ring, tmp_path / "ring")
    path = tmp_path / "ring" / "train_items.npy"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    assert "train_items.npy" in refused("train", "--data", tmp_path / "ring", "--out", tmp_path / "run")
    path.write_bytes(content[:-4])
    assert "train_items.npy" in refused("train", "--data", tmp_path / "ring", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_exits_with_1(data, run_command, tmp_path):
    process = run_command("train", "--data", data, *SMALL, "--set", "learning_rate=1e30", "--out", tmp_path / "run")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "the loss became" in process.stderr or "not finite" in process.stderr

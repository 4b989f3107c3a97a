import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import InputError
from paddle_srgnn.model import SRGNN
from paddle_srgnn.run import Progress, Run
from paddle_srgnn.training.checkpoint import restore, save_checkpoint

SETTINGS = load_recipe("paper", {"embedding_dim": "6"})
DATASET = {"name": "toy", "path": "toy", "hash": "0123", "protocol": "sessions"}


def trained(steps: int):
    model = SRGNN(SETTINGS.model_config(n_items=13))
    adam = paddle.optimizer.Adam(0.01, parameters=model.parameters())
    for _ in range(steps):
        step(model, adam)
    return model, adam


def step(model, adam):
    model(np.array([[1, 2, 3], [4, 4, 0]]), None, np.array([5, 6]))["loss"].backward()
    adam.step()
    adam.clear_grad()


def save(run, model, adam, names=("last",), **progress):
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    save_checkpoint(run, list(names), model, SETTINGS, DATASET, Progress(**progress), model, adam)


@pytest.fixture
def run(tmp_path):
    save(tmp_path, *trained(2), step=2)
    return tmp_path


def test_a_checkpoint_holds_the_references_keys_and_nothing_to_unpickle(run):
    from safetensors.numpy import load_file

    folder = Run(run).find_checkpoint("last")
    assert folder.name == "step-00000002"
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "state.json", "training.safetensors"]
    with np.load(Path(__file__).parents[1] / "golden" / "one_step.npz") as golden:
        keys = {name[len("param/") :] for name in golden if name.startswith("param/")}
    assert set(load_file(folder / "model.safetensors")) == keys
    assert "gnn.w_ih/moment1_0" in load_file(folder / "training.safetensors")


def test_another_model_of_the_process_goes_on_alike(run):
    one, adam = trained(0)
    other, other_adam = trained(3)  # Paddle numbers its parameters differently
    for model, optimizer in ((one, adam), (other, other_adam)):
        restore(Run(run).checkpoint("last"), model, model, optimizer)
        step(model, optimizer)
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


def test_only_named_checkpoints_are_kept(run):
    model, adam = trained(1)
    save(run, model, adam, ("last", "best"), step=5)
    save(run, model, adam, step=6)
    save(run, model, adam, step=7)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best", "last", "step-00000005", "step-00000007"]  # fmt: skip
    assert Run(run).find_checkpoint().name == "step-00000005"
    assert Run(run).find_checkpoint("last").name == "step-00000007"


def test_a_folder_of_the_users_own_is_never_removed(run):
    for name in ("notes", "step-one", "step-00000002-backup"):
        (run / "checkpoints" / name).mkdir()
    save(run, *trained(1), step=3)
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {"last", "step-00000003", "notes", "step-one", "step-00000002-backup"}


def test_saving_a_step_again_never_touches_what_a_name_points_to(run, monkeypatch):
    model, adam = trained(1)
    before = {path.name: path.read_bytes() for path in Run(run).find_checkpoint("last").iterdir()}
    from paddle_srgnn.training import checkpoint

    def killed(_):
        raise SystemExit

    monkeypatch.setattr(checkpoint, "atomic_file", killed)  # after the folder is written, before `last` moves on
    with pytest.raises(SystemExit):
        save(run, model, adam, step=2)
    assert {path.name: path.read_bytes() for path in Run(run).find_checkpoint("last").iterdir()} == before
    monkeypatch.undo()
    save(run, model, adam, step=2)
    assert Run(run).find_checkpoint("last").name == "step-00000002-2"


def test_a_checkpoint_is_found_by_its_own_path_too(run):
    folder = Run(run).find_checkpoint("last")
    assert Run(folder).find_checkpoint() == folder
    model = Run(folder).model()
    assert not model.training and model.n_items == 13


def damage_state(folder, **changes):
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | changes))


def damage_progress(folder, **changes):
    damage_state(folder, progress=json.loads((folder / "state.json").read_text())["progress"] | changes)


def damage_files(folder, more):
    damage_state(folder, files=json.loads((folder / "state.json").read_text())["files"] | more)


def link(path, target):
    path.unlink()
    path.symlink_to(target)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors: truncated or altered"),
        (lambda folder: flip(folder / "training.safetensors"), "training.safetensors: truncated or altered"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda folder: truncate(folder / "state.json"), "not a checkpoint's state"),
        (lambda folder: (folder / "state.json").write_bytes(b"\x80\x04\x95"), "not a checkpoint's state"),
        (lambda folder: (folder / "state.json").write_text("[]"), "found []; expected a mapping"),
        (lambda folder: damage_state(folder, format=99), "format version 99"),
        (lambda folder: damage_state(folder, settings={"embeding_dim": 6}), "did you mean 'embedding_dim'"),
        (lambda folder: damage_state(folder, n_items=10**12), "n_items=1000000000000, embedding_dim=6"),
        (lambda folder: damage_state(folder, n_items=[13]), "n_items: found [13]; expected int"),
        (lambda folder: damage_state(folder, n_items=0), "n_items=0"),
        (lambda folder: damage_state(folder, settings=False), "settings: found False; expected dict"),
        (lambda folder: damage_state(folder, dataset={"name": "toy"}), "path: missing"),
        (lambda folder: damage_state(folder, files=["model.safetensors"]), "files: found"),
        (lambda folder: damage_state(folder, files={}), "expected model.safetensors, training.safetensors"),
        (lambda folder: damage_files(folder, {"/dev/zero": ""}), "expected model.safetensors, training.safetensors"),
        (lambda folder: link(folder / "model.safetensors", "/dev/zero"), "missing or no file"),
        (lambda folder: damage_progress(folder, best_epoch="x"), "best_epoch: found 'x'; expected int"),
        (lambda folder: damage_progress(folder, best_epoch=4), "0 epochs done, the best 4"),
        (lambda folder: damage_progress(folder, epoch=3), "2 epochs done, the best 0, 0 rows of history"),
        (lambda folder: damage_progress(folder, step=-1), "step=-1: expected a count"),
        (lambda folder: damage_progress(folder, history="x"), "history: found 'x'; expected list"),
        (lambda folder: damage_progress(folder, history=["x"]), "found 'x'; expected a mapping"),
        (lambda folder: damage_progress(folder, history=[{"epoch": 1}]), "missing; expected int or float"),
        (lambda folder: damage_progress(folder, loss_sum=None), "loss_sum: found None; expected int or float"),
        (lambda folder: (folder / "state.json").write_text("[" * 100_000), "not a checkpoint's state"),
        (lambda folder: (folder / "state.json").write_text("[" + "7" * 5000 + "]"), "not a checkpoint's state"),
        (lambda folder: damage_state(folder, n_items=14), "item_emb.weight: found [13, 6], expected [14, 6]"),
    ],
)
def test_a_damaged_checkpoint_is_refused(run, damage, message):
    folder = Run(run).find_checkpoint("last")
    damage(folder)
    with pytest.raises(InputError) as error:
        Run(folder).model()
    assert message in str(error.value) and str(folder) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_no_checkpoint_is_said_clearly(tmp_path, run):
    with pytest.raises(InputError, match="no such run"):
        Run(tmp_path / "nowhere").find_checkpoint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint here"):
        Run(tmp_path / "empty").find_checkpoint()
    shutil.rmtree(Run(run).find_checkpoint("last"))
    with pytest.raises(InputError, match="not a checkpoint here"):
        Run(run).find_checkpoint()


def test_a_pointer_cannot_lead_out_of_its_folder(run):
    (run / "checkpoints" / "last").write_text("../../elsewhere\n")
    with pytest.raises(InputError, match="not a checkpoint here"):
        Run(run).find_checkpoint()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 5000, b"\0", b"."])
def test_a_damaged_pointer_is_refused_in_a_short_line(run, content):
    for name in ("last", "best"):
        (run / "checkpoints" / name).write_bytes(content)
        with pytest.raises(InputError, match="not a checkpoint here") as error:
            Run(run).find_checkpoint(name)
        assert len(str(error.value)) < 400


def test_a_link_among_the_checkpoints_is_left_alone(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / "checkpoints" / "step-00000001").symlink_to(tmp_path / "elsewhere")
    save(run, *trained(1), step=3)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last", "step-00000003", "step-00000001"}

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn.cli.train import parse_changes
from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.graph import padded_graph
from paddle_srgnn.model import SRGNN
from paddle_srgnn.run import UNKNOWN_DATASET, Progress, Run, RunConfig, create_run, describe_dataset
from paddle_srgnn.serving import export
from paddle_srgnn.serving.padded import SessionEncoder
from paddle_srgnn.serving.verification import Original, Trial, load_onnx, load_paddle, pad, trial_sessions, verify
from paddle_srgnn.training.checkpoint import save_checkpoint

N_ITEMS, LENGTH, K = 21, 5, 4
SWITCHES = {
    "plain": [],
    "steps": ["step=3"],
    "cosine": ["cosine_scale=12"],
    "positions": ["positions=3"],
    "item zero": ["score_item_zero=true", "initialization=paddle"],
    "all": ["cosine_scale=12", "positions=3", "step=2", "dropout=0.5", "label_smoothing=0.1"],
}
sessions_strategy = st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=9), min_size=1, max_size=5)


def make_model(*changes: str, seed: int = 3) -> SRGNN:
    paddle.seed(seed)
    model = SRGNN(load_recipe("paper", {"embedding_dim": "6", **parse_changes(changes)}).model_config(N_ITEMS))
    model.eval()
    return model


def make_run(folder: Path, dataset, *changes: str, recipe: str = "paper") -> Path:
    """A run with weights as they are drawn: large enough for every part of the model to count."""
    chosen = load_recipe(recipe, {"embedding_dim": "6", "max_session_length": f"{LENGTH}", **parse_changes(changes)})
    config = RunConfig(recipe, chosen, describe_dataset(dataset), {})
    create_run(folder, config, dataset)
    (folder / "checkpoints").mkdir()
    paddle.seed(5)
    model = SRGNN(chosen.model_config(dataset.n_items))
    with paddle.no_grad():
        model.item_emb.weight[0] = 9.0  # what training makes of the padding's row must show nowhere
    save_checkpoint(folder, ["last"], model, chosen, config.dataset, Progress(epoch=chosen.epochs + 1))
    return folder


@pytest.fixture(scope="module")
def opened(data):
    from paddle_srgnn.datasets.sessions import open_dataset

    return open_dataset(data)


@pytest.fixture(scope="module")
def run(opened, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", opened, *SWITCHES["all"])


@pytest.fixture(scope="module")
def onnx():
    for package in export.PACKAGES:
        pytest.importorskip(package, reason='needs the extra "onnx": paddle2onnx, onnx and onnxruntime')


def connections(session: list[int]) -> tuple[list[int], np.ndarray]:
    encoder = SessionEncoder(make_model(), 70)
    clicks = encoder.recent_clicks(paddle.to_tensor([session]))
    return clicks[0].tolist(), encoder.connections(clicks)[0].numpy()


def test_the_graph_of_the_docstring_session():
    """1, 2, 3, 2, 4 after a column of padding: both clicks on 2 have 2's row, and what comes from 2 comes from one."""
    clicks, A = connections([1, 2, 3, 2, 4, 0])
    assert clicks == [0, 0, 1, 2, 3, 2, 4]
    incoming, outgoing = A[2:, 2:7], A[2:, 9:]
    assert not A[:2].any() and not A[:, [0, 1, 7, 8]].any()
    assert incoming.tolist() == [
        [0, 0, 0, 0, 0],
        [0.5, 0, 0.5, 0, 0],
        [0, 1, 0, 0, 0],
        [0.5, 0, 0.5, 0, 0],
        [0, 0, 0, 1, 0],
    ]
    assert outgoing.tolist() == [
        [0, 1, 0, 0, 0],
        [0, 0, 0.5, 0, 0.5],
        [0, 0, 0, 1, 0],
        [0, 0, 0.5, 0, 0.5],
        [0, 0, 0, 0, 0],
    ]


def test_a_lone_click_has_no_edge_and_a_self_loop_is_one_however_often():
    assert not connections([7])[1].any()
    clicks, A = connections([7, 7, 7])
    assert clicks == [0, 7, 7, 7]
    assert A[1:].tolist() == [[0, 1, 0, 0, 0, 0, 1, 0]] * 3


@settings(deadline=None, max_examples=60)
@given(sessions_strategy)
def test_the_graph_equals_that_of_graph_py(sessions):
    """Summed over the clicks of each item, the matrix between clicks is the reference's between nodes."""
    encoder = SessionEncoder(make_model(), 70)
    item_seq = pad([np.array(session) for session in sessions])
    clicks = encoder.recent_clicks(paddle.to_tensor(item_seq))
    A, width = encoder.connections(clicks).numpy(), clicks.shape[1]
    graph = padded_graph(item_seq)
    nodes = item_seq.shape[1]
    for row, session in enumerate(sessions):
        alias = graph.alias_inputs[row, : len(session)]
        for half in (0, 1):  # incoming, outgoing
            between = A[row, width - len(session) :, (half + 1) * width - len(session) : (half + 1) * width]
            summed = np.zeros((len(session), nodes))
            np.add.at(summed.T, alias, between.T)
            expected = graph.A[row, :, half * nodes : (half + 1) * nodes][alias]
            np.testing.assert_allclose(summed, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("switches", SWITCHES)
@settings(deadline=None, max_examples=20)
@given(sessions=sessions_strategy, padding=st.integers(0, 3))
def test_session_vectors_equal_the_models(switches, sessions, padding):
    model = make_model(*SWITCHES[switches])
    encoder = SessionEncoder(model, LENGTH)
    rows = [np.array(session) for session in sessions]
    item_seq = np.pad(pad(rows), ((0, 0), (0, padding)))
    expected = Original(model, LENGTH, cosine=False).encode(rows)
    found = encoder(paddle.to_tensor(item_seq)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


SHAPES = [(1, 1), (3, 1), (1, 4), (2, LENGTH), (4, LENGTH + 1), (7, 3 * LENGTH)]


def check_files(original: Original, folder: Path, load) -> None:
    """The models as their user finds them, at every shape, against the model's scores sorted by numpy."""
    rng = np.random.default_rng(0)
    encoder, ranker = load(folder, "encoder"), load(folder, "ranker")
    for n, longest in SHAPES:
        rows = [rng.integers(1, 7, longest if i == 0 else rng.integers(1, longest + 1)) for i in range(n)]
        expected = original.encode(rows)
        (vectors,), (numbers, scores) = encoder(pad(rows)), ranker(pad(rows))
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        all_scores = expected @ original.table.T  # without the padding, which is never recommended
        best = np.argsort(-all_scores, axis=1)[:, :K]
        assert numbers.dtype == np.int64 and numbers.tolist() == (best + 1).tolist()
        np.testing.assert_allclose(scores, np.take_along_axis(all_scores, best, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("switches", ["plain", "all"])
def test_paddle_inference_equals_the_model(switches, cosine, tmp_path):
    original = Original(make_model(*SWITCHES[switches]), LENGTH, cosine)
    export.save_paddle(original, tmp_path, K)
    check_files(original, tmp_path, load_paddle)


@pytest.mark.parametrize(("switches", "cosine"), [("plain", False), ("all", False), ("plain", True)])
def test_onnx_equals_the_model_and_names_its_ends(switches, cosine, tmp_path, onnx):
    import onnxruntime

    original = Original(make_model(*SWITCHES[switches]), LENGTH, cosine)
    models = export.save_onnx(original, tmp_path, K)
    check_files(original, tmp_path, load_onnx)
    for name, description in models.items():
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        for ends, described in ((session.get_inputs(), "inputs"), (session.get_outputs(), "outputs")):
            types = [f"tensor({end['dtype'].replace('float32', 'float')})" for end in description[described]]
            names = [end["name"] for end in description[described]]
            assert [(end.name, end.type) for end in ends] == list(zip(names, types, strict=True))


def test_a_paddle_export_and_its_manifest(run, opened, tmp_path):
    manifest = export.export_run(run, tmp_path / "out", "paddle", K)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    names = ["encoder.json", "encoder.pdiparams", "items.csv", "manifest.json", "ranker.json", "ranker.pdiparams"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert (tmp_path / "out" / "items.csv").read_bytes() == (run / "items.csv").read_bytes()
    assert (manifest["n_items"], manifest["k"], manifest["max_session_length"]) == (21, K, LENGTH)
    assert manifest["checkpoint"] == str(Run(run).find_checkpoint())
    verified = manifest["verified"]
    assert verified["on"].endswith("test sessions of ring")
    assert verified["sessions"] == opened.test.n_samples + 1 and verified["clicks"] == [1, LENGTH + 5]
    assert verified["identical_lists"] == verified["sessions"]
    for difference in verified["differences"].values():
        assert 0 <= difference["largest"] <= difference["allowed"] < 1e-3
    (vectors,) = load_paddle(tmp_path / "out", "encoder")(np.array([[3, 4, 5]]))
    expected = Original(Run(run).model(), LENGTH, cosine=False).encode([np.array([3, 4, 5])])
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


def test_item_vectors_are_the_models_in_the_order_of_items_csv(run, tmp_path):
    manifest = export.export_run(run, tmp_path / "out", "vectors")
    vectors = np.load(tmp_path / "out" / "items.npy", allow_pickle=False)
    assert vectors.dtype == np.float32 and list(vectors.shape) == manifest["items"]["shape"] == [20, 6]
    table = Run(run).model().output_items().numpy()
    np.testing.assert_array_equal(vectors, table[1:])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)  # the run has cosine_scale
    assert len((tmp_path / "out" / "items.csv").read_text().splitlines()) == 1 + len(vectors)


def test_a_run_of_the_courses_protocol_is_exported_by_cosine(ring_users, tmp_path):
    """As it is measured: unit vectors, whose products are the cosines."""
    run = make_run(tmp_path / "run", ring_users, recipe="datawhale")
    for kind in ("vectors", "paddle"):
        manifest = export.export_run(run, tmp_path / kind, kind, K)
        assert manifest["similarity"] == "cosine"
        assert manifest["verified"]["identical_lists"] == manifest["verified"]["sessions"]
    vectors = np.load(tmp_path / "vectors" / "items.npy", allow_pickle=False)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_the_strong_recipe_exports(opened, tmp_path):
    run = make_run(tmp_path / "run", opened, recipe="strong")
    manifest = export.export_run(run, tmp_path / "out", "paddle", K)
    assert manifest["model"]["cosine_scale"] == 14 and manifest["model"]["positions"] == 70
    assert manifest["verified"]["identical_lists"] == manifest["verified"]["sessions"]


def test_without_its_dataset_a_run_is_checked_on_random_sessions(ring, tmp_path):
    import dataclasses

    run = make_run(tmp_path / "run", dataclasses.replace(ring, path=tmp_path / "gone"))
    trial = trial_sessions(Run(run))
    assert trial.source.startswith("random sessions") and "gone" in trial.source
    assert {len(session) for session in trial.checked} == set(range(1, LENGTH + 6))
    assert all(session.min() >= 1 and session.max() < ring.n_items for session in trial.checked)
    assert any(a == b for session in trial.checked for a, b in pairwise(session.tolist()))  # self-loops


def test_imported_weights_are_checked_on_random_sessions(ring, tmp_path):
    """Their dataset is unknown, even if an items.csv stands beside them."""
    run = make_run(tmp_path / "run", ring)
    path = Run(run).find_checkpoint() / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": UNKNOWN_DATASET}))
    trial = trial_sessions(Run(run))
    assert trial.source.startswith("random sessions") and "trained on unknown data" in trial.source


def test_inputs_of_every_length_are_checked(run, opened):
    trial = trial_sessions(Run(run))
    inputs = [
        session[:end].tolist()
        for session in np.split(opened.test.items, opened.test.offsets[1:-1])
        for end in range(1, len(session))
    ]
    assert sorted(session.tolist() for session in trial.checked[:-1]) == sorted(inputs)
    assert [len(session) for session in trial.checked[:5]] == [1, 2, 3, 4, 5]
    assert len(trial.checked[-1]) == LENGTH + 5


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda numbers, scores: (numbers, scores + 0.1), "scores differ by up to 0.1"),
        (lambda numbers, scores: (numbers, scores * np.nan), "scores differ by up to nan"),
        (lambda numbers, scores: (numbers[:, ::-1], scores[:, ::-1]), "not the best"),
        (lambda numbers, scores: (numbers * 0, scores), "an unknown item"),
        (lambda numbers, scores: (numbers * 0 + 1, scores), "an item twice"),
    ],
)
def test_a_wrong_export_fails(damage, message):
    original = Original(make_model(), LENGTH, cosine=False)

    def rank(item_seq):
        scores = original.encode([row[row != 0] for row in item_seq]) @ original.table.T
        best = np.argsort(-scores, axis=1)[:, :K]
        return damage(best + 1, np.take_along_axis(scores, best, 1))

    trial = Trial("toys", [np.array([1, 2, 3]), np.array([4])], [])
    with pytest.raises(WorkFailed, match=message):
        verify(original, trial, rank)


def test_a_failed_check_leaves_nothing(run, tmp_path, monkeypatch):
    saved = export.save_paddle
    monkeypatch.setattr(export, "save_paddle", lambda original, *rest: saved(
            Original(make_model(*SWITCHES["all"], seed=9), LENGTH, cosine=False), *rest))
    with pytest.raises(WorkFailed, match="user_vectors differ"):
        export.export_run(run, tmp_path / "out", "paddle", K)
    assert not list(tmp_path.iterdir())


def test_more_items_than_there_are_and_a_run_without_its_items_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="has 20 items"):
        export.export_run(run, tmp_path / "out", "paddle", 21)
    shutil.copytree(run, tmp_path / "bare")
    (tmp_path / "bare" / "items.csv").unlink()
    with pytest.raises(InputError, match="missing"):
        export.export_run(tmp_path / "bare", tmp_path / "out", "paddle", K)
    assert not (tmp_path / "out").exists()

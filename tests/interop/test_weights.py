"""Weights of the other implementations: their scores, and their bytes there and back again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.config import Settings
from paddle_srgnn.errors import InputError
from paddle_srgnn.interop.arrays import read_arrays, write_arrays
from paddle_srgnn.interop.peers import PEERS
from paddle_srgnn.interop.weights import export_weights, import_weights, to_ours, to_theirs
from paddle_srgnn.run import Run

GOLDEN = Path(__file__).parents[1] / "golden"
UNUSED = PEERS["authors-pytorch"].unused


def oracle(peer: str) -> dict[str, np.ndarray]:
    """Weights, inputs and outputs of an implementation, written by itself."""
    files = {"authors-pytorch": "peers/authors_pytorch", "recbole": "peers/recbole", "datawhale": "three_steps"}
    with np.load(GOLDEN / f"{files[peer]}.npz") as file:
        return dict(file)


def weights_of(peer: str) -> dict[str, np.ndarray]:
    return {name.removeprefix("param/"): a for name, a in oracle(peer).items() if name.startswith("param/")}


@pytest.fixture
def file(tmp_path):
    """Write a peer's weights, some of them changed or (None) left out, into a file."""

    def write(peer: str, suffix: str = ".npz", **changes) -> Path:
        arrays = {name: a for name, a in (weights_of(peer) | changes).items() if a is not None}
        path = tmp_path / f"{peer}{suffix}"
        path.unlink(missing_ok=True)
        write_arrays(path, arrays)
        return path

    return write


def checkpoint_of(run: Path):
    return Run(run).checkpoint()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("peer", PEERS)
def test_the_scores_are_the_peers(peer, suffix, file, tmp_path):
    golden = oracle(peer)
    import_weights(peer, file(peer, suffix), tmp_path / "run", step=int(golden["config/step"]))
    model = Run(tmp_path / "run").model()
    output = model(golden["item_seq"], None, golden["target"])
    scores = output["user_emb"].numpy() @ model.output_items().numpy().T
    if "scores_without_item_0" in golden:
        np.testing.assert_allclose(scores[:, 1:], golden["scores_without_item_0"], rtol=0, atol=1e-5)
        assert not model.score_item_zero
    else:
        expected = golden["scores"] if "scores" in golden else golden["user_emb"] @ golden["param/item_emb.weight"].T
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
        assert model.score_item_zero
    assert output["loss"].item() == pytest.approx(float(golden["loss"]), abs=1e-5)  # by its candidates


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("peer", PEERS)
def test_import_then_export_gives_the_same_arrays(peer, suffix, file, tmp_path):
    unused = {name: np.zeros_like(weights_of(peer)[name]) for name in PEERS[peer].unused}
    original = file(peer, suffix, **unused)
    import_weights(peer, original, tmp_path / "run")
    back = tmp_path / f"back{suffix}"
    assert export_weights(peer, Run(tmp_path / "run"), back) is None
    first, second = read_arrays(original), read_arrays(back)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert (array.dtype, array.shape, array.tobytes()) == (
            second[name].dtype, second[name].shape, second[name].tobytes()), name  # fmt: skip
    if suffix == ".safetensors" or not unused:  # an .npz keeps the order, and the authors have theirs in the middle
        assert original.read_bytes() == back.read_bytes()


def test_the_authors_unused_layer_comes_back_as_zeros(file, tmp_path):
    import_weights("authors-pytorch", file("authors-pytorch"), tmp_path / "run")
    export_weights("authors-pytorch", Run(tmp_path / "run"), tmp_path / "back.npz")
    back, own = read_arrays(tmp_path / "back.npz"), weights_of("authors-pytorch")
    for name, array in own.items():
        np.testing.assert_array_equal(back[name], np.zeros_like(array) if name in UNUSED else array, err_msg=name)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("peer", PEERS)
def test_export_then_import_gives_the_same_model_and_then_the_same_file(peer, suffix, file, tmp_path):
    import_weights("datawhale", file("datawhale"), tmp_path / "own")
    own = checkpoint_of(tmp_path / "own")
    export_weights(peer, Run(tmp_path / "own"), tmp_path / f"there{suffix}")
    import_weights(peer, tmp_path / f"there{suffix}", tmp_path / "back")
    model, back = (checkpoint.folder / "model.safetensors" for checkpoint in (own, checkpoint_of(tmp_path / "back")))
    assert model.read_bytes() == back.read_bytes()
    export_weights(peer, Run(tmp_path / "back"), tmp_path / f"again{suffix}")
    assert (tmp_path / f"there{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()


def test_the_authors_gate_by_hand():
    """d = 1 and one weight of each gate: only the input gate's sign turns, and matrices lie on their side."""
    ours = {"item_emb.weight": np.ones((3, 1)), "gnn.w_ih": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
            "gnn.b_hh": np.array([7.0, 8.0, 9.0]), "gnn.b_ioh": np.array([10.0])}  # fmt: skip
    theirs = to_theirs(PEERS["authors-pytorch"], ours)
    assert theirs["gnn.w_ih"].tolist() == [[1, 4], [-2, -5], [3, 6]]
    assert theirs["gnn.b_hh"].tolist() == [7, -8, 9] and theirs["gnn.b_oah"].tolist() == [10]
    assert theirs["gnn.linear_edge_f.weight"].tolist() == [[0]] and theirs["gnn.linear_edge_f.bias"].tolist() == [0]
    assert theirs["embedding.weight"].shape == (3, 1)
    back = to_ours(PEERS["authors-pytorch"], theirs, ours)
    assert {key: array.tolist() for key, array in back.items()} == {key: a.tolist() for key, a in ours.items()}


def test_pdparams_written_by_paddle_2_6_and_by_this_paddle(tmp_path):
    import paddle

    import_weights("datawhale", GOLDEN / "peers" / "datawhale.pdparams", tmp_path / "old")
    model = Run(tmp_path / "old").model()
    with np.load(GOLDEN / "peers" / "datawhale.npz") as expected:
        assert set(expected) == set(model.state_dict())
        for name, array in expected.items():
            np.testing.assert_array_equal(model.state_dict()[name].numpy(), array, err_msg=name)
    for protocol in (2, 3, 4):
        paddle.save(model.state_dict(), str(tmp_path / f"{protocol}.pdparams"), protocol=protocol)
        import_weights("datawhale", tmp_path / f"{protocol}.pdparams", tmp_path / f"run{protocol}")
        own, new = (checkpoint_of(tmp_path / run).folder for run in ("old", f"run{protocol}"))
        assert (own / "model.safetensors").read_bytes() == (new / "model.safetensors").read_bytes()


def test_a_run_is_complete_and_says_where_it_came_from(file, tmp_path):
    import_weights("recbole", file("recbole"), tmp_path / "run", step=3, max_session_length=9)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "config.yaml"]
    assert sorted(path.name for path in checkpoint_of(tmp_path / "run").folder.iterdir()) == [
        "model.safetensors", "state.json"]  # fmt: skip
    config = Run(tmp_path / "run").config
    assert config.dataset == {"name": "unknown", "path": None, "hash": None, "protocol": "sessions"}
    assert (config.settings.step, config.settings.max_session_length, config.settings.embedding_dim) == (3, 9, 12)
    assert config.environment["imported"]["from"] == "recbole"
    assert config.settings == checkpoint_of(tmp_path / "run").settings


def test_a_dataset_of_as_many_items_fits_with_a_warning_and_no_other_does(file, ring, tmp_path, caplog):
    import_weights("recbole", file("recbole"), tmp_path / "run")
    run = Run(tmp_path / "run")
    with pytest.raises(InputError, match="70 items against 21, padding included"):
        run.load_dataset(ring)
    alike = dataclasses.replace(ring, item_ids=["", *map(str, range(69))])
    run.load_dataset(alike)
    assert "dataset is unknown; their items are assumed to be numbered as in ring" in caplog.text
    with pytest.raises(InputError, match="unknown data without a folder; name a dataset that numbers its 69 items"):
        run.load_dataset()


@pytest.mark.parametrize(
    "peer, changes, message",
    [
        ("recbole", {"linear_one.bias": None}, "linear_one.bias: missing, expected float32 [12]"),
        ("recbole", {"surplus": np.zeros(2)}, "surplus: found float64 [2], expected no such key"),
        ("recbole", {"gnn.w_hh": np.zeros((12, 36), np.float32)},
         "gnn.w_hh: found float32 [12, 36], expected float32 [36, 12]"),
        ("recbole", {"gnn.b_ih": np.zeros(36)}, "gnn.b_ih: found float64 [36], expected float32 [36]"),
        ("recbole", {"gnn.b_ih": np.full(36, np.nan, np.float32)}, "gnn.b_ih: found values that are not finite"),
        ("recbole", {"item_embedding.weight": None}, "item_embedding.weight: missing, expected [n_items, d]"),
        ("recbole", {"item_embedding.weight": np.zeros(3)}, "item_embedding.weight: found [3], expected [n_items, d]"),
        ("authors-pytorch", {UNUSED[0]: None}, "gnn.linear_edge_f.weight: missing, expected float32 [16, 16]"),
        ("authors-pytorch", {"gnn.b_oah": None, "gnn.b_ioh": np.zeros(16, np.float32)},
         "gnn.b_ioh: found float32 [16], expected no such key; gnn.b_oah: missing, expected float32 [16]"),
        ("datawhale", {"gnn.w_ih": np.zeros((36, 24), np.float32)}, "expected float32 [24, 36]"),
    ],
)  # fmt: skip
def test_every_key_and_shape_is_checked(peer, changes, message, file, tmp_path):
    path = file(peer, **changes)
    with pytest.raises(InputError) as error:
        import_weights(peer, path, tmp_path / "run")
    assert str(path) in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_wrong_peer_is_told_from_the_right_one(file, tmp_path):
    with pytest.raises(InputError, match="its keys are those of recbole"):
        import_weights("authors-pytorch", file("recbole"), tmp_path / "run")


@pytest.mark.parametrize(
    "peer, name, message",
    [
        ("recbole", "w.pth", r"read from .safetensors, .npz; convert a PyTorch file .*python -c .*\['state_dict'\]"),
        ("authors-pytorch", "w.pt", "weights_only=True"),
        ("authors-pytorch", "w.pdparams", "weights of authors-pytorch are read from .safetensors, .npz"),
        ("datawhale", "w.bin", "read from .safetensors, .npz, .pdparams$"),
        ("datawhale", "w.npz", "no such file"),
    ],
)
def test_a_file_of_another_kind_is_refused(peer, name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        import_weights(peer, tmp_path / name, tmp_path / "run")


def test_nothing_is_overwritten(file, tmp_path):
    path = file("recbole")
    import_weights("recbole", path, tmp_path / "run")
    with pytest.raises(InputError, match="exists already"):
        import_weights("recbole", path, tmp_path / "run")
    with pytest.raises(InputError, match="exists already"):
        export_weights("recbole", Run(tmp_path / "run"), path)
    with pytest.raises(InputError, match=r"expected .safetensors or .npz"):
        export_weights("datawhale", Run(tmp_path / "run"), tmp_path / "w.pdparams")


def test_item_zero_is_spoken_of_where_the_two_differ(file, tmp_path):
    import_weights("authors-pytorch", file("authors-pytorch"), tmp_path / "without")
    import_weights("recbole", file("recbole"), tmp_path / "with")
    without, with_zero = Run(tmp_path / "without"), Run(tmp_path / "with")
    assert "scores the padding item 0" in export_weights("recbole", without, tmp_path / "a.npz")
    assert "scores the padding item 0" in export_weights("datawhale", without, tmp_path / "b.npz")
    assert "never scores the padding item 0" in export_weights("authors-pytorch", with_zero, tmp_path / "c.npz")
    assert export_weights("datawhale", with_zero, tmp_path / "d.npz") is None


def test_what_a_peer_cannot_compute_is_not_exported(file, tmp_path, monkeypatch):
    import_weights("datawhale", file("datawhale"), tmp_path / "run")
    monkeypatch.setattr(Settings, "scoring_switches", lambda self: {"positions": 3})
    with pytest.raises(InputError, match="trained with positions=3, which recbole cannot compute"):
        export_weights("recbole", Run(tmp_path / "run"), tmp_path / "w.npz")
    assert not (tmp_path / "w.npz").exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_wide_item_table_is_refused_before_a_model_of_its_width_is_built(file, tmp_path, suffix):
    changes = {"item_emb.weight": np.zeros((1, 1_000_000), np.float32)}
    with pytest.raises(InputError, match=r"found \[1, 1000000\], but no other array has 1000000 x 1000000 numbers"):
        import_weights("datawhale", file("datawhale", suffix, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Each mistake in the classes of references.py must be found, and nothing else."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from paddle_srgnn.comparison import (
    ADAM_LOSSES,
    ALONE,
    GRAPH,
    OTHER_TARGETS,
    Comparison,
    Difference,
    compare,
    load_reference,
    of_run,
    padded_samples,
    random_batches,
    random_weights,
    real_batches,
)
from paddle_srgnn.config import Settings
from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.graph import pad
from paddle_srgnn.interop.arrays import write_arrays
from paddle_srgnn.interop.peers import PEERS
from paddle_srgnn.interop.weights import import_weights, to_theirs
from paddle_srgnn.run import Run

REFERENCES = Path(__file__).parent / "references.py"
SMALL = {"embedding_dim": 6, "step": 2, "n_items": 40}
BATCHES = random_batches(SMALL["n_items"])
SOME = {"single clicks, padded", "self-loops and repeats", "one row"}


def compared(name: str, names: Iterable[str] = SOME) -> Comparison:
    reference = load_reference(f"{REFERENCES}:{name}")
    return compare(reference, SMALL, random_weights(SMALL), {batch: BATCHES[batch] for batch in names})


def failed(found: Comparison, quantity: str) -> set[str]:
    """The batches on which a quantity differs."""
    return {one.batch for one in found.differences if one.quantity == quantity and not one.passed}


def test_an_implementation_that_computes_the_same_passes_everywhere():
    found = compared("SRGNN", BATCHES)
    assert found.passed and not found.errors
    quantities = {one.quantity for one in found.differences}
    assert {*GRAPH, "user_emb", "loss", ADAM_LOSSES, "gradient of gnn.linear_edge_out.bias"} <= quantities
    assert len(quantities) == 4 + 2 + 18 + 1 + 5 + 1
    assert len(found.differences) == len(BATCHES) * len(quantities)
    assert set(found.step_ms) == set(BATCHES) and all(ms > 0 for pair in found.step_ms.values() for ms in pair)


def test_the_course_code_passes(shared):
    reference = load_reference(str(shared / "reference" / "datawhale_srgnn_paddle3.py"))
    assert compare(reference, SMALL, random_weights(SMALL), BATCHES).passed


def test_in_and_out_swapped_are_found_wherever_there_are_edges():
    found = compared("InAndOutSwapped")
    edged = {"self-loops and repeats", "one row"}
    assert failed(found, "A") == failed(found, "user_emb") == failed(found, "gradient of gnn.w_ih") == edged
    assert not failed(found, "alias_inputs") and not failed(found, "items") and not failed(found, "mask")


def test_a_missing_normalisation_is_found_where_a_node_has_two_neighbours():
    found = compared("NotNormalised")
    assert failed(found, "A") == failed(found, "user_emb") == {"self-loops and repeats"}
    assert max(one.largest for one in found.differences if one.quantity == "A") == pytest.approx(2 / 3)  # 1 for 1/3


def test_a_reversed_gate_is_found_everywhere_and_the_graphs_pass():
    found = compared("GateReversed")
    assert failed(found, "user_emb") == failed(found, "loss") == SOME
    assert not any(failed(found, quantity) for quantity in GRAPH)


def test_a_gradient_that_does_not_arrive_is_found_though_the_loss_agrees():
    found = compared("UntrainedItems")
    assert not failed(found, "loss") and not failed(found, "gradient of linear_two.weight")
    assert failed(found, "gradient of item_emb.weight") == failed(found, ADAM_LOSSES) == SOME


ORDERS = {f"{ALONE}{name}" for name in ("in order", "shuffled", "reversed", "in batches of 7", "in one batch")}


def leaks(found: Comparison) -> set[str]:
    return {one.quantity for one in found.differences if not one.passed} & (ORDERS | {OTHER_TARGETS})


def test_batch_normalisation_over_the_session_vectors_is_found_in_every_order():
    found = compared("NormalisedOverTheBatch")
    assert leaks(found) == ORDERS
    assert set.union(*(failed(found, quantity) for quantity in ORDERS)) == SOME - {"one row"}  # which has no neighbours


def test_a_scorer_that_mixes_neighbours_is_found_though_all_that_is_trained_agrees():
    found = compared("MixedWithItsNeighbour")
    wrong = {one.quantity for one in found.differences if not one.passed}
    assert wrong == ORDERS == leaks(found)


def test_a_scorer_that_reads_the_target_is_found():
    found = compared("ReadsTheTarget")
    wrong = {one.quantity for one in found.differences if not one.passed}
    assert wrong == {OTHER_TARGETS} and failed(found, OTHER_TARGETS) == SOME


def test_nan_never_passes():
    found = compared("NotANumber")
    assert not leaks(found)
    assert failed(found, "user_emb") == SOME and not failed(found, "loss")
    assert not Difference("", "", float("nan"), 1.0).passed and not Difference("", "", float("inf"), 1.0).passed


def test_another_shape_is_an_infinite_difference():
    found = compared("AnotherShape", ["one row"])
    assert {one.largest for one in found.differences if one.quantity == "mask"} == {float("inf")}


def test_the_references_own_error_is_kept_for_its_batch_and_the_rest_go_on():
    found = compared("WrongOnLongRows", ["one row", "long", "single clicks"])
    assert not found.passed and all(one.passed for one in found.differences)
    (error,) = found.errors.items()
    assert error[0] == "long" and "ValueError: too long for this port (line" in error[1]
    assert set(found.step_ms) == {"one row", "single clicks"}


@pytest.mark.parametrize(
    "name, kind, message",
    [
        ("AnotherInterface", InputError, "AnotherInterface does not have the reference's interface.*argument: 'd'"),
        ("NoLayer", InputError, "it is not a paddle.nn.Layer"),
        ("CannotBeMade", WorkFailed, "CannotBeMade|KeyError: 'hidden_size'"),
        (
            "AnotherStateDict",
            WorkFailed,
            r"extra.weight: found \[1, 1\], expected None; linear_two.bias: found None, expected \[6",
        ),
        ("Nothing", InputError, "has no class Nothing"),
        ("paddle", InputError, "has no class paddle"),
    ],
)
def test_what_cannot_be_compared_is_said(name, kind, message):
    with pytest.raises(kind, match=message):
        compared(name)


@pytest.mark.parametrize("code, message", [("import nowhere", "ModuleNotFoundError"), ("exit(3)", "SystemExit: 3"),
                                           ("def f(:", "SyntaxError")])  # fmt: skip
def test_a_file_that_cannot_be_run_is_said_with_its_own_error(tmp_path, code, message):
    path = tmp_path / "broken.py"
    path.write_text(f"# first line\n{code}\n")
    with pytest.raises(WorkFailed, match=f"cannot be run: {message}"):
        load_reference(str(path))


def test_the_batches_are_what_their_names_say():
    batches = BATCHES
    lengths = {name: (item_seq > 0).sum(axis=1) for name, (item_seq, _) in batches.items()}
    assert len(set(lengths["padded"].tolist())) > 5
    assert (lengths["full rows"] == batches["full rows"][0].shape[1]).all()
    assert (lengths["single clicks"] == 1).all() and batches["single clicks"][0].shape[1] == 1
    assert (lengths["single clicks, padded"] == 1).all() and batches["single clicks, padded"][0].shape[1] > 1
    loops = batches["self-loops and repeats"][0]
    assert ((loops[:, 1:] == loops[:, :-1]) & (loops[:, 1:] > 0)).any()
    assert lengths["long"].max() == 70 and lengths["one row"].tolist() == [7]


def test_real_batches_hold_samples_of_the_sessions(ring):
    batches = real_batches(ring.test, max_session_length=3)
    assert sum(len(target) for _, target in batches.values()) == min(300, ring.test.n_samples)
    for item_seq, target in batches.values():
        assert item_seq.shape[1] <= 3
        last = item_seq[np.arange(len(target)), (item_seq > 0).sum(axis=1) - 1]
        np.testing.assert_array_equal(last % 20 + 1, target)  # every session walks along the ring


def test_padded_samples_of_a_hand_worked_example():
    sessions = Sessions(np.array([1, 2, 3, 4, 5], dtype=np.int32), np.array([0, 3, 5]))
    rows, target = padded_samples(sessions, np.array([1, 2, 4]), 3, 3)
    assert rows.tolist() == [[1, 0, 0], [1, 2, 0], [4, 0, 0]] and target.tolist() == [2, 3, 5]
    assert padded_samples(sessions, np.array([2]), 1)[0].tolist() == [[2]]
    assert pad([[7], [8, 9]]).tolist() == [[7, 0], [8, 9]] and pad([[7]], 3).dtype == np.int64


def test_a_run_with_settings_that_the_reference_lacks_is_refused(ring, data, tmp_path, monkeypatch):
    sizes = {"embedding_dim": 8, "step": 2, "n_items": 21}
    weights = random_weights(sizes)
    write_arrays(tmp_path / "w.npz", to_theirs(PEERS["authors-pytorch"], weights))
    import_weights("authors-pytorch", tmp_path / "w.npz", tmp_path / "run", step=2)  # item 0 not scored
    found, arrays, batches = of_run(Run(tmp_path / "run"), str(data))
    assert found == sizes and len(batches) == 3
    for name, array in weights.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    monkeypatch.setattr(Settings, "scoring_switches", lambda self: {"score_item_zero": False, "positions": 3})
    with pytest.raises(InputError, match="trained with positions=3, which the reference does not have"):
        of_run(Run(tmp_path / "run"), str(data))

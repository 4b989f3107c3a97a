"""The audit passes a sound run and finds each planted leak."""

import dataclasses

import numpy as np
import pytest
from paddle import nn

from paddle_srgnn.config import Settings
from paddle_srgnn.datasets.samples import SampleBatches
from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.evaluation import audit as audits
from paddle_srgnn.evaluation.audit import arrangements, audit, date_checks
from paddle_srgnn.model import SRGNN
from paddle_srgnn.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")
ORDERS = ["in order", "shuffled", "reversed", "in batches of 7", "in one batch"]


@pytest.fixture
def later(ring):
    """The ring with test sessions after the training sessions; in `ring` itself they are at the same time."""
    return dataclasses.replace(ring, test=dataclasses.replace(ring.test, dates=ring.test.dates + 10**7))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches of 8, so that the ring has several."""
    monkeypatch.setattr(audits, "ModelScorer", SmallScorer)


class SmallScorer(audits.ModelScorer):
    def __init__(self, model, settings):
        super().__init__(model, dataclasses.replace(settings, eval_batch_size=8))


def failed(found) -> set[str]:
    return {check.name for check in found.checks if check.passed is False}


@pytest.fixture
def plant(monkeypatch):
    """Change what the model makes of the session vectors of a batch (B, d)."""
    encode = SRGNN.encode

    def change(leak):
        monkeypatch.setattr(SRGNN, "encode", lambda self, graph, **how: leak(encode(self, graph, **how)))

    return change


def batch_normalised(vectors):
    layer = nn.BatchNorm1D(vectors.shape[1])  # a new layer is in training mode, and so it stays
    return layer(vectors)


def mixed_with_the_one_before(vectors):
    return 0.9 * vectors + 0.1 * vectors.roll(1, axis=0)


def test_a_sound_run_passes(ring_run, later):
    found = audit(ring_run, later)
    assert found.passed and found.samples == later.test.n_samples and found.name == str(ring_run)
    names = [check.name for check in found.checks]
    assert names == [*ORDERS, "other targets", "training before the test", "no copies of test sessions"]
    assert f"of {found.samples} of {found.samples} samples as alone" in found.checks[0].found


@pytest.mark.parametrize("leak", [batch_normalised, mixed_with_the_one_before])
def test_a_model_that_looks_at_its_neighbours_fails_every_order(ring_run, later, plant, leak):
    plant(leak)
    found = audit(ring_run, later)
    assert not found.passed
    assert failed(found) == set(ORDERS)


def test_a_leak_too_small_for_the_ranks_is_seen_in_the_vectors(ring_run, later, plant):
    plant(lambda vectors: vectors + 1e-4 * vectors.mean(axis=0))
    found = audit(ring_run, later)
    assert "in one batch" in failed(found)


def test_rounding_passes(ring_run, later, plant):
    plant(lambda vectors: vectors * (1 + 1e-7 * (len(vectors) % 3)))
    assert audit(ring_run, later).passed


def test_items_that_score_almost_the_same_may_change_places(ring_run, later, monkeypatch, plant):
    """The items differ in one element only, by which a session vector's element of 2e-6, or of -2e-6, orders them."""
    load = Run.model

    def alike(run):
        model = load(run)
        weight = np.tile(model.item_emb.weight.numpy()[1], (later.n_items, 1))
        weight[:, 0] = np.arange(later.n_items) / later.n_items
        model.item_emb.weight.set_value(weight)
        return model

    def ordered(vectors):
        vectors[:, 0] = 2e-6 if len(vectors) == 1 else -2e-6
        return vectors

    monkeypatch.setattr(Run, "model", alike)
    plant(ordered)
    found = audit(ring_run, later)
    assert found.passed and "differ by rounding" in found.checks[0].found


def test_an_input_that_holds_its_target_fails(ring_run, later, monkeypatch):
    monkeypatch.setattr(SampleBatches, "__getitem__", with_its_target)
    found = audit(ring_run, later)
    assert failed(found) == {"other targets"}


def with_its_target(self, k):
    from paddle_srgnn.graph import packed_graph

    part = slice(k * self.batch_size, (k + 1) * self.batch_size)
    pairs = zip(self.starts[part], self.positions[part], strict=True)
    inputs = [self.items[start : end + 1] for start, end in pairs]  # one click too many
    graph = packed_graph(np.concatenate(inputs), np.array(list(map(len, inputs))))
    return *graph, self.items[self.positions[part]].astype(np.int64)


def test_training_sessions_at_the_time_of_the_test_fail(ring_run, ring):
    found = {check.name: check for check in audit(ring_run, ring).checks}
    before, copies = found["training before the test"], found["no copies of test sessions"]
    assert before.passed is False and "150 training sessions are dated at or after that" in before.found
    assert copies.passed is False  # walks along a ring repeat


def sessions(*rows, dates=None) -> Sessions:
    offsets = np.cumsum([0, *map(len, rows)])
    return Sessions(np.concatenate(rows).astype(np.int32), offsets, None if dates is None else np.array(dates))


def test_copies_count_from_the_date_of_the_test_session():
    test = sessions([1, 2], [3, 4, 5], dates=[100, 200])
    earlier, copies = date_checks(sessions([1, 2], [9, 9], dates=[10, 99]), test)
    assert earlier.passed and copies.passed
    assert earlier.found == "training ends 1970-01-01 00:01:39, the test begins 1970-01-01 00:01:40"
    assert copies.found == "1 of 2 test sessions have the clicks of training sessions, 0 at or after their date"
    earlier, copies = date_checks(sessions([3, 4, 5], dates=[150]), test)  # after the test began, before its twin
    assert not earlier.passed and copies.passed
    earlier, copies = date_checks(sessions([3, 4, 5], [1, 2], dates=[50, 100]), test)
    assert not earlier.passed and not copies.passed and copies.found.endswith("1 at or after their date")


def test_dates_of_any_year_are_printed():
    before, _ = date_checks(sessions([1, 2], dates=[-99999999999]), sessions([1, 2], dates=[10**12]))
    assert before.found == "training ends -1199-02-15 14:13:21, the test begins 33658-09-27 01:46:40"


def test_without_dates_only_the_copies_are_counted():
    before, copies = date_checks(sessions([1, 2], [3, 4]), sessions([3, 4], [3, 4], [4, 3]))
    assert (before.passed, before.found) == (None, "no dates")
    assert copies.passed is None
    assert copies.found == "no dates; 2 of 3 test sessions have the clicks of training sessions"


def test_the_sample_holds_whole_sessions(ring_run, later):
    test = later.test
    positions = audits._some_samples(test, test.sample_positions(), 20, seed=0)
    assert 0 < len(positions) <= 20
    for start in set(test.sample_starts(positions).tolist()):
        own = [p for p in test.sample_positions() if test.sample_starts(np.array([p]))[0] == start]
        assert set(own) <= set(positions.tolist())
    other = audits._some_samples(test, test.sample_positions(), 20, seed=1)
    assert not np.array_equal(positions, other)
    assert audit(ring_run, later, samples=20).samples == len(positions)


def test_arrangements_hold_every_sample_once():
    for order, size in arrangements(30, 8, seed=0).values():
        assert sorted(order.tolist()) == list(range(30)) and 1 < size <= 30


@pytest.fixture
def user_run(ring_users, monkeypatch):
    """A run on users, without a folder: an untrained model."""
    run = object.__new__(Run)
    run.name = "users"
    settings = Settings(embedding_dim=8)
    model = SRGNN(settings.model_config(ring_users.n_items))
    monkeypatch.setattr(Run, "load_dataset", lambda self, data=None: data)
    monkeypatch.setattr(Run, "model", lambda self: model)
    checkpoint = type("C", (), {"settings": settings})
    monkeypatch.setattr(Run, "checkpoint", lambda self, name=None: checkpoint)
    return run


def test_the_courses_lists_are_audited(user_run, ring_users):
    found = audit(user_run, ring_users)
    assert found.passed and found.samples == len(ring_users.test)
    assert found.checks[0].found.startswith("lists of 6 of 6 samples as alone")
    assert [check.passed for check in found.checks[-2:]] == [None, None]
    assert "of 6 test users have the clicks of training users" in found.checks[-1].found


@pytest.mark.parametrize("leak", [batch_normalised, mixed_with_the_one_before])
def test_the_courses_lists_show_a_leak(user_run, ring_users, plant, leak):
    plant(leak)
    assert {"in order", "shuffled", "in one batch"} <= failed(audit(user_run, ring_users))

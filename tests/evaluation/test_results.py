import shutil

import numpy as np
import pytest

import paddle_srgnn
from paddle_srgnn.errors import InputError
from paddle_srgnn.evaluation.results import Result, mean_and_deviation
from paddle_srgnn.run import Run


def test_a_run_a_path_and_a_checkpoint_give_the_same(ring_run, ring):
    run = Run(ring_run)
    results = [paddle_srgnn.evaluate(what, ks=(1, 3)) for what in (run, ring_run, run.find_checkpoint())]
    for result in results:
        assert list(result.metrics) == ["P@1", "MRR@1", "NDCG@1", "P@3", "MRR@3", "NDCG@3"]
        assert result.metrics == results[0].metrics and result.samples == ring.test.n_samples
        low, high = result.intervals["P@1"]
        assert low <= result.metrics["P@1"] <= high
    assert results[0].top is None and results[0].run is run


def test_it_equals_what_training_measured(ring_run):
    assert paddle_srgnn.evaluate(ring_run).metrics["MRR@20"] == Run(ring_run).metrics[-1]["test_MRR@20"]


def test_a_result_says_whether_its_run_is_finished(ring_run, tmp_path):
    assert paddle_srgnn.evaluate(ring_run).unfinished == ""
    shutil.copytree(ring_run, tmp_path / "run")
    path = Run(tmp_path / "run").find_checkpoint() / "state.json"
    path.write_text(path.read_text().replace('"epochs": 6', '"epochs": 8'))
    result = paddle_srgnn.evaluate(tmp_path / "run")
    assert result.unfinished == "epoch 7 of 8"
    assert result.title == f"{tmp_path / 'run'} (unfinished: epoch 7 of 8)"


def test_without_the_last_checkpoint_the_progress_is_unknown_and_the_best_is_measured(ring_run, tmp_path):
    shutil.copytree(ring_run, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last").rename(tmp_path / "run" / "checkpoints" / "best")
    result = paddle_srgnn.evaluate(tmp_path / "run")
    assert result.unfinished == "unknown progress"
    assert result.metrics == paddle_srgnn.evaluate(ring_run).metrics


def test_baselines_are_measured_on_the_dataset_they_learned_from(ring):
    contenders = paddle_srgnn.baselines(ring)
    results = {baseline.name: paddle_srgnn.evaluate(baseline, ring, ks=[1]) for baseline in contenders}
    assert list(results) == ["popularity", "session popularity", "Markov", "V-SKNN"]
    assert results["Markov"].metrics["P@1"] == 100  # the next item of the ring is certain
    assert results["Markov"].run is None and not results["Markov"].is_bound


def test_lists_are_kept_where_they_are_asked_for(ring_run, ring):
    result = paddle_srgnn.evaluate(ring_run, keep_lists=True)
    assert result.top.shape == (ring.test.n_samples, 20)
    targets = ring.test.items[ring.test.sample_positions()]
    assert np.array_equal(result.top[:, 0] == targets, result.ranks == 1)


@pytest.mark.parametrize(
    "how, message",
    [({"split": "train"}, "expected test or valid"), ({"split": "valid"}, "no validation set"), ({"data": "no"}, "no")],
)
def test_what_cannot_be_measured_is_refused(ring_run, how, message):
    with pytest.raises(InputError, match=message):
        paddle_srgnn.evaluate(ring_run, **how)


def test_a_baseline_needs_the_data(ring):
    with pytest.raises(InputError, match="needs the dataset"):
        paddle_srgnn.evaluate(paddle_srgnn.baselines(ring)[0])


def test_users_of_the_course_are_counted_and_have_its_metrics(ring_users):
    markov = paddle_srgnn.baselines(ring_users)[2]
    result = paddle_srgnn.evaluate(markov, ring_users)
    assert result.samples == len(ring_users.test) and result.ranks is None and result.intervals == {}
    assert list(result.metrics)[:4] == ["recall@20", "hitrate@20", "course_ndcg@20", "ndcg@20"]
    with pytest.raises(InputError, match="order of items"):
        paddle_srgnn.evaluate(markov, ring_users, ties="mean")


def test_the_mean_and_the_sample_standard_deviation():
    results = [Result(str(seed), 1, {"P@20": value}) for seed, value in enumerate((50.0, 52.0, 57.0))]
    assert mean_and_deviation(results) == [
        ("mean", {"P@20": 53.0}),
        ("standard deviation", {"P@20": pytest.approx(13**0.5)}),  # ((-3)² + (-1)² + 4²) / 2 = 13
    ]
    assert mean_and_deviation(results[:1]) == [("mean", {"P@20": 50.0})]

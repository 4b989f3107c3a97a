import pytest

from paddle_srgnn.errors import InputError
from paddle_srgnn.protocols import PROTOCOLS, protocol_of
from paddle_srgnn.protocols.course import Course
from paddle_srgnn.protocols.paper import Paper


def test_the_dataset_says_which_one_it_is(ring, ring_users):
    assert isinstance(protocol_of(ring), Paper) and isinstance(protocol_of(ring_users), Course)
    assert list(PROTOCOLS) == ["sessions", "course"]


def test_a_monitored_metric_has_its_name_on_either_protocol():
    paper, course = Paper(), Course()
    assert course.metric("recall@50") == "recall@50"
    assert paper.metric("recall@50") == "P@50"  # with one right item they are the same
    assert paper.metric("MRR@20") == "MRR@20"
    with pytest.raises(InputError, match="monitor=MRR@20: protocol course measures recall@K, hitrate@K"):
        course.metric("MRR@20")
    with pytest.raises(InputError, match="monitor=hitrate@5: protocol sessions measures P@K, MRR@K, NDCG@K"):
        paper.metric("hitrate@5")


def test_validation_takes_the_most_recent_sessions(ring):
    older, recent = Paper().split(ring, 0.1)
    assert len(recent) == 15 and older.dates.max() < recent.dates.min()
    assert Paper().split(ring, 0.0) == (ring.train, None)
    with pytest.raises(InputError, match="share"):
        Paper().split(ring, 0.0001)


def test_the_course_has_users_of_its_own_for_validation(ring_users):
    for share in (0.0, 0.1):
        assert Course().split(ring_users, share) == (ring_users.train, ring_users.valid)


def test_what_an_epoch_and_a_measurement_count(ring, ring_users):
    assert Paper().n_samples(ring.train) == len(ring.train.items) - len(ring.train)
    assert Course().n_samples(ring_users.train) == len(ring_users.train) == 48  # one of each user
    assert Course().n_measured(ring_users.test) == 6
    assert Paper().positions(ring.train, 0, 1).tolist() == ring.train.sample_positions().tolist()

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.graph import packed_graph, padded_graph, unpad

sessions_strategy = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1, max_size=6)


def pad(sessions: list[list[int]], length: int) -> np.ndarray:
    return np.array([session + [0] * (length - len(session)) for session in sessions])


def pack(sessions: list[list[int]]):
    return packed_graph(np.concatenate(sessions), np.array([len(session) for session in sessions]))


def test_padded_graph_of_the_docstring_session():
    graph = padded_graph(np.array([[1, 2, 3, 2, 4]]))
    assert graph.items.tolist() == [[1, 2, 3, 4, 0]]
    assert graph.alias_inputs.tolist() == [[0, 1, 2, 1, 3]]
    assert graph.mask.tolist() == [[1, 1, 1, 1, 1]]
    assert graph.A[0, :, :5].tolist() == [
        [0, 0, 0, 0, 0],
        [0.5, 0, 0.5, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert graph.A[0, :, 5:].tolist() == [
        [0, 1, 0, 0, 0],
        [0, 0, 0.5, 0.5, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_padding_is_the_first_node_of_a_padded_row():
    graph = padded_graph(np.array([[5, 3, 0, 0]]))
    assert graph.items.tolist() == [[0, 3, 5, 0]]
    assert graph.alias_inputs.tolist() == [[2, 1, 0, 0]]
    assert graph.A[0, 1, 2] == 1 and graph.A[0, 2, 4 + 1] == 1 and graph.A.sum() == 2


def test_packed_graph_of_the_docstring_session():
    graph = pack([[1, 2, 3, 2, 4]])
    assert graph.items.tolist() == [1, 2, 3, 4]
    # By receiver: item 1 hears from 2 (against 1->2); item 2 from 1 and 3 (along) and from 3 and 4 (against); ...
    assert graph.message_to.tolist() == [1, 2, 2, 3, 3, 4, 5, 6]
    assert graph.message_from.tolist() == [3, 0, 4, 5, 7, 2, 3, 2]
    assert graph.message_weight.tolist() == [1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1]
    assert graph.click_node.tolist() == [0, 1, 2, 1, 3]
    assert graph.click_session.tolist() == [0] * 5
    assert graph.last_click.tolist() == [4]


def test_sessions_of_one_batch_share_no_node():
    graph = pack([[7, 8], [8], [8, 8]])
    assert graph.items.tolist() == [7, 8, 8, 8]
    assert graph.click_node.tolist() == [0, 1, 2, 3, 3]
    assert graph.click_session.tolist() == [0, 0, 1, 2, 2]
    assert graph.last_click.tolist() == [1, 2, 4]
    # 7->8 and the self-loop 8->8, along (even numbers) and against (odd ones).
    assert graph.message_to.tolist() == [1, 2, 6, 7]
    assert graph.message_from.tolist() == [3, 0, 6, 7]


def test_a_batch_without_edges_has_one_message_without_weight():
    graph = pack([[3], [4]])
    assert graph.message_weight.tolist() == [0]
    assert graph.message_from.tolist() == graph.message_to.tolist() == [0]


def test_padded_graph_equals_the_reference(golden):
    graph = padded_graph(golden["item_seq"])
    for name in ("alias_inputs", "items", "mask"):
        assert getattr(graph, name).dtype == golden[name].dtype
        np.testing.assert_array_equal(getattr(graph, name), golden[name])
    assert graph.A.dtype == golden["A"].dtype
    np.testing.assert_allclose(graph.A, golden["A"], rtol=0, atol=1e-7)


@given(st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=5))
def test_padded_graph_follows_the_definition_even_with_zeros_anywhere(rows):
    graph = padded_graph(np.array(rows))
    for b, row in enumerate(rows):
        nodes = sorted(set(row))
        assert graph.items[b].tolist() == nodes + [0] * (7 - len(nodes))
        assert graph.alias_inputs[b].tolist() == [nodes.index(item) for item in row]
        edges = set()
        for u, v in pairwise(row):
            if v == 0:
                break
            edges.add((nodes.index(u), nodes.index(v)))
        expected = np.zeros((7, 14), dtype=np.float32)
        for u, v in edges:
            expected[v, u] = 1 / sum(edge[1] == v for edge in edges)
            expected[u, 7 + v] = 1 / sum(edge[0] == u for edge in edges)
        np.testing.assert_allclose(graph.A[b], expected, rtol=0, atol=1e-7)


@given(sessions_strategy)
def test_packed_and_padded_hold_the_same_edges(sessions):
    padded, packed = padded_graph(pad(sessions, 9)), pack(sessions)
    assert np.all(np.diff(packed.message_to) >= 0)
    session_of_node = np.zeros(len(packed.items), dtype=int)
    session_of_node[packed.click_node] = packed.click_session
    for b, session in enumerate(sessions):
        nodes = np.nonzero(session_of_node == b)[0]
        first_node = int(len(session) < 9)  # the padding, where there is some
        assert padded.items[b, first_node : first_node + len(nodes)].tolist() == packed.items[nodes].tolist()
        A = np.zeros((9, 18), dtype=np.float32)
        inside = np.isin(packed.message_to // 2, nodes)
        for source, target, weight in zip(
            packed.message_from[inside], packed.message_to[inside], packed.message_weight[inside], strict=True
        ):
            assert target % 2 == source % 2
            place = first_node - nodes[0]
            A[target // 2 + place, source // 2 + place + 9 * (target % 2)] = weight
        np.testing.assert_array_equal(A, padded.A[b])


@given(sessions_strategy)
def test_unpad_undoes_padding(sessions):
    clicks, lengths = unpad(pad(sessions, 9), n_items=13)
    assert clicks.tolist() == [item for session in sessions for item in session]
    assert lengths.tolist() == [len(session) for session in sessions]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([[1, 2], [0, 0]], "row 1: padding only"),
        ([[1, 2, 3], [1, 0, 2]], "row 1: a 0 before a click"),
        ([[0, 1], [1, 2]], "row 0: a 0 before a click"),
        ([[1, 2], [1, 9]], r"row 1: item id 9 is outside \[0, 9\)"),
        ([[1, -1], [1, 2]], r"row 0: item id -1 is outside \[0, 9\)"),
        ([1, 2], "of shape"),
        ([[1.5, 2.0]], "integers"),
    ],
)
def test_unpad_refuses_what_the_encoder_cannot_read(rows, message):
    with pytest.raises(ValueError, match=message):
        unpad(np.array(rows), n_items=9)


def test_unpad_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="empty"):
        unpad(np.zeros((0, 3), dtype=np.int64), n_items=9)

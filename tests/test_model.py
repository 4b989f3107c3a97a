import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn import GNN, SRGNN

GRADIENT_TOLERANCE = 1e-4  # of the largest entry


def reference_model(golden) -> SRGNN:
    model = SRGNN({key: int(golden[f"config/{key}"]) for key in ("n_items", "embedding_dim", "step")})
    parameters = {name[len("param/") :]: array for name, array in golden.items() if name.startswith("param/")}
    assert set(parameters) == set(model.state_dict())
    missing, unexpected = model.set_state_dict(parameters)
    assert not missing and not unexpected
    return model


def small_model(**switches) -> SRGNN:
    paddle.seed(7)
    return SRGNN({"embedding_dim": 6, "step": 2, "n_items": 13, **switches})


def user_emb(model: SRGNN, sessions: list[list[int]], length: int = 9) -> np.ndarray:
    rows = [session + [0] * (length - len(session)) for session in sessions]
    return model(np.array(rows), train=False)["user_emb"].numpy()


def test_get_slice_equals_the_reference(golden):
    outputs = reference_model(golden)._get_slice(paddle.to_tensor(golden["item_seq"]))
    for name, output in zip(("alias_inputs", "A", "items", "mask"), outputs, strict=True):
        assert output.numpy().dtype == golden[name].dtype
        np.testing.assert_allclose(output.numpy(), golden[name], rtol=0, atol=1e-7 if name == "A" else 0)


def test_user_emb_loss_and_every_gradient_equal_the_reference(golden):
    model = reference_model(golden)
    output = model(paddle.to_tensor(golden["item_seq"]), None, paddle.to_tensor(golden["target"]))
    for name in ("user_emb", "loss"):
        tolerance = 1e-6 * max(1, np.abs(golden[name]).max()) + 1e-6
        np.testing.assert_allclose(output[name].numpy(), golden[name], rtol=0, atol=tolerance)
    output["loss"].backward()
    for name, parameter in model.named_parameters():
        expected = golden[f"grad/{name}"]
        assert parameter.grad is not None, name
        tolerance = GRADIENT_TOLERANCE * np.abs(expected).max() + 1e-7
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=tolerance, err_msg=name)


def test_ten_adam_steps_follow_the_reference(golden):
    model = reference_model(golden)
    adam = paddle.optimizer.Adam(float(golden["adam_lr"]), parameters=model.parameters())
    losses = []
    for _ in range(10):
        loss = model(golden["item_seq"], None, golden["target"])["loss"]
        losses.append(loss.item())
        loss.backward()
        adam.step()
        adam.clear_grad()
    tolerance = 1e-2 if golden["name"] == "long_sessions" else 1e-3
    np.testing.assert_allclose(losses, golden["loss_10_adam_steps"], rtol=0, atol=tolerance)


def test_padded_layers_give_the_same_session_vectors(golden):
    """The reference's own route, through `_get_slice` and `GNN.forward`, with our layers."""
    model = reference_model(golden)
    alias_inputs, A, items, mask = model._get_slice(golden["item_seq"])
    hidden = model.gnn(A, model.item_emb(items))
    index = alias_inputs.unsqueeze(2).expand([-1, -1, model.embedding_size])
    seq_hidden = paddle.take_along_axis(hidden, index, 1)
    ht = model.gather_indexes(seq_hidden, mask.sum(axis=1) - 1)
    energy = paddle.nn.functional.sigmoid(model.linear_one(ht).unsqueeze(1) + model.linear_two(seq_hidden))
    a = (model.linear_three(energy) * seq_hidden * mask.unsqueeze(2).astype("float32")).sum(1)
    expected = model.linear_transform(paddle.concat([a, ht], axis=1))
    output = model(golden["item_seq"], mask, None, train=False)
    assert set(output) == {"user_emb"}
    np.testing.assert_allclose(output["user_emb"].numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_gnn_forward_repeats_the_cell():
    paddle.seed(1)
    gnn = GNN(4, step=3)
    A, hidden = paddle.rand([2, 5, 10]), paddle.rand([2, 5, 4])
    once = gnn.GNNCell(A, hidden)
    assert once.shape == [2, 5, 4]
    np.testing.assert_array_equal(gnn(A, hidden).numpy(), gnn.GNNCell(A, gnn.GNNCell(A, once)).numpy())


def test_a_batch_without_edges_trains_every_parameter_with_zero_where_it_is_not_reached():
    model = small_model()
    model(np.array([[3], [4]]), None, np.array([1, 2]))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert not model.gnn.linear_edge_in.weight.grad.numpy().any()
    assert not model.gnn.linear_edge_out.bias.grad.numpy().any()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=2, max_size=6))
def test_sessions_of_a_batch_do_not_affect_one_another(sessions):
    model = small_model()
    together = user_emb(model, sessions)
    for session, vector in zip(sessions, together, strict=True):
        np.testing.assert_allclose(user_emb(model, [session], len(session))[0], vector, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1, max_size=6), st.randoms())
def test_relabelling_the_items_permutes_the_scores(sessions, random):
    model, relabelled = small_model(), small_model()
    new_id = np.array([0, *random.sample(range(1, 13), 12)])
    table = model.item_emb.weight.numpy()
    moved = np.empty_like(table)
    moved[new_id] = table
    relabelled.item_emb.weight.set_value(moved)
    scores = user_emb(model, sessions) @ table.T
    new_sessions = [[int(new_id[item]) for item in session] for session in sessions]
    new_scores = user_emb(relabelled, new_sessions) @ moved.T
    np.testing.assert_allclose(new_scores[:, new_id], scores, rtol=1e-4, atol=1e-5)


def test_the_reference_initialisation_is_paddles_own():
    paddle.seed(3)
    model = SRGNN({"embedding_dim": 6, "step": 1, "n_items": 13})
    paddle.seed(3)
    plain = paddle.nn.Embedding(13, 6, padding_idx=0)
    np.testing.assert_array_equal(model.item_emb.weight.numpy(), plain.weight.numpy())
    assert not model.linear_one.bias.numpy().any()
    assert model.gnn.b_ih.numpy().any()


def test_uniform_initialisation_is_the_authors():
    model = small_model(initialization="uniform")
    bound = 1 / np.sqrt(6)
    for name, parameter in model.named_parameters():
        values = parameter.numpy()
        assert np.abs(values).max() <= bound, name
        assert values.std() > 0.2 * bound, name
    assert not model.item_emb.weight.numpy()[0].any()


def test_item_zero_is_a_candidate_only_by_the_switch():
    for score_item_zero in (True, False):
        model = small_model(score_item_zero=score_item_zero)
        item_seq, target = np.array([[1, 2, 3]]), np.array([5])
        output = model(item_seq, None, target)
        scores = output["user_emb"].numpy() @ model.item_emb.weight.numpy().T
        scores = scores[0] if score_item_zero else scores[0, 1:]
        target_score = scores[5 if score_item_zero else 4]
        assert output["loss"].item() == pytest.approx(np.log(np.exp(scores).sum()) - target_score, abs=1e-5)
        output["loss"].backward()
        assert model.item_emb.weight.grad.numpy()[0].any() == score_item_zero


SWITCHES = {"cosine_scale": 12.0, "dropout": 0.5, "positions": 4}


@pytest.mark.parametrize("switch", [None, *SWITCHES])
def test_a_switch_that_is_off_changes_nothing(switch):
    """Off by default; on, each makes another loss; only positions add a parameter."""
    switches = {} if switch is None else {switch: SWITCHES[switch]}
    plain, switched = small_model(), small_model(**switches)
    extra = set(switched.state_dict()) - set(plain.state_dict())
    assert extra == ({"pos_emb.weight"} if switch == "positions" else set())
    switched.set_state_dict({**switched.state_dict(), **plain.state_dict()})
    losses = [model(np.array([[1, 2, 3, 2]]), None, np.array([5]))["loss"].item() for model in (plain, switched)]
    assert (losses[0] == losses[1]) == (switch is None)


def test_label_smoothing_belongs_to_the_loss():
    model = small_model()
    user_emb, target = model(np.array([[1, 2, 3, 2]]), train=False)["user_emb"], paddle.to_tensor([5])
    scores = paddle.matmul(user_emb, model.output_items(), transpose_y=True)
    log_probabilities = paddle.nn.functional.log_softmax(scores)[0]
    expected = -0.8 * log_probabilities[5] - 0.2 * log_probabilities.mean()
    assert model.calculate_loss(user_emb, target, 0.2).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sessions_are_encoded_as_they_are():
    model = small_model()
    sessions = [np.array([1, 2, 3, 2, 4]), np.array([7]), np.array([5, 5])]
    rows = np.array([[1, 2, 3, 2, 4], [7, 0, 0, 0, 0], [5, 5, 0, 0, 0]])
    expected = model(rows, train=False)["user_emb"].numpy()
    np.testing.assert_allclose(model.encode_sessions(sessions).numpy(), expected, rtol=1e-6, atol=1e-7)
    recent = model.encode_sessions(sessions, max_session_length=2).numpy()
    np.testing.assert_allclose(recent, model.encode_sessions([s[-2:] for s in sessions]).numpy())


def test_cosine_scores_are_the_scale_times_the_cosine_and_blind_to_lengths():
    model = small_model(cosine_scale=12.0)
    before = user_emb(model, [[1, 2, 3, 2], [4]])
    scores = before @ model.output_items().numpy().T
    vectors = model.item_emb.weight.numpy()[1:]
    cosine = before @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T / 12
    np.testing.assert_allclose(scores[:, 1:], 12 * cosine, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 12, rtol=1e-5)
    model.item_emb.weight.set_value(model.item_emb.weight * paddle.arange(1, 14, dtype="float32").unsqueeze(1))
    np.testing.assert_allclose(user_emb(model, [[1, 2, 3, 2], [4]]), before, atol=1e-4)
    np.testing.assert_allclose(before @ model.output_items().numpy().T, scores, atol=1e-4)


def test_with_cosine_scores_the_readout_sees_clicks_of_length_one(monkeypatch):
    model, seen = small_model(cosine_scale=12.0), []
    model.linear_two.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    propagate = model.gnn.propagate
    monkeypatch.setattr(
        model.gnn, "propagate", lambda graph, nodes: seen.append(nodes.numpy()) or propagate(graph, nodes)
    )
    user_emb(model, [[1, 2, 3, 2], [4]])
    assert [rows.shape for rows in seen] == [(4, 6), (5, 6)]
    for rows in seen:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_dropout_zeroes_node_vectors_in_training_only(monkeypatch):
    model, seen = small_model(dropout=0.25), []
    monkeypatch.setattr(model.gnn, "propagate", lambda graph, nodes: seen.append(nodes.numpy()) or nodes)
    sessions = [[item] for item in range(1, 13)] * 100
    for train in (True, False):
        model.train() if train else model.eval()
        user_emb(model, sessions, 1)
    training, evaluation = seen
    np.testing.assert_array_equal(evaluation, model.item_emb.weight.numpy()[[*range(1, 13)] * 100])
    kept = training != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_allclose(training[kept], (evaluation / 0.75)[kept], rtol=1e-5)


def test_positions_count_from_the_last_click_and_the_rest_share_one(monkeypatch):
    model, seen = small_model(positions=3), []
    monkeypatch.setattr(model.gnn, "propagate", lambda graph, hidden: paddle.zeros_like(hidden))
    model.linear_two.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    user_emb(model, [[1, 2, 3, 2, 4], [7, 8]])
    table = model.pos_emb.weight.numpy()
    np.testing.assert_array_equal(seen[0], table[[2, 2, 2, 1, 0, 1, 0]])


@pytest.mark.parametrize(
    "item_seq, item, message",
    [
        ([[1, 2], [0, 0]], [1, 1], "row 1: padding only"),
        ([[1, 2], [0, 3]], [1, 1], "row 1: a 0 before"),
        ([[1, 2], [13, 3]], [1, 1], "row 1: item id 13"),
        ([[1, 2]], [13], "next item must be"),
        ([[1, 2]], [-1], "next item must be"),
        ([[1, 2]], None, "needs the next items"),
    ],
)
def test_forward_refuses_what_it_cannot_read(item_seq, item, message):
    with pytest.raises(ValueError, match=message):
        small_model()(np.array(item_seq), None, item)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"embedding_dim": 6, "step": 1}, "n_items"),
        ({"embedding_dim": 0, "step": 1, "n_items": 3}, "embedding_dim"),
        ({"embedding_dim": 6, "step": 1, "n_items": 3, "initialization": "he"}, "initialization"),
        ({"embedding_dim": 6, "step": 1, "n_items": 3, "cosine_scale": -1.0}, "cosine_scale"),
        ({"embedding_dim": 6, "step": 1, "n_items": 3, "dropout": 1.0}, "dropout"),
    ],
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        SRGNN(config)

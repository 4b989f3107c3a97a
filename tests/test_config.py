import pytest

from paddle_srgnn.config import FIELDS, load_recipe, make_settings, metric_on, recipe_names
from paddle_srgnn.errors import InputError


def test_the_recipes_are_what_their_sources_say():
    assert {"datawhale", "paper"} <= set(recipe_names())
    paper = load_recipe("paper")
    assert (paper.embedding_dim, paper.step, paper.initialization, paper.score_item_zero) == (100, 1, "uniform", False)
    assert (paper.learning_rate, paper.weight_decay, paper.batch_size, paper.epochs) == (1e-3, 1e-5, 512, 7)
    assert paper.max_session_length == 70
    datawhale = load_recipe("datawhale")
    assert (datawhale.embedding_dim, datawhale.initialization, datawhale.score_item_zero) == (16, "paddle", True)
    assert (datawhale.learning_rate, datawhale.batch_size, datawhale.max_session_length) == (1e-4, 256, 20)
    assert (datawhale.patience, datawhale.monitor) == (5, "recall@50")


def test_a_monitored_metric_has_its_name_on_either_protocol():
    assert metric_on("course", "recall@50") == "recall@50"
    assert metric_on("sessions", "recall@50") == "P@50"  # with one right item they are the same
    assert metric_on("sessions", "MRR@20") == "MRR@20"
    with pytest.raises(InputError, match="monitor=MRR@20: data of protocol course have recall@K, hitrate@K"):
        metric_on("course", "MRR@20")
    with pytest.raises(InputError, match="monitor=hitrate@5: data of protocol sessions have P@K, MRR@K, NDCG@K"):
        metric_on("sessions", "hitrate@5")


def test_the_step_size_falls_after_the_named_epochs():
    paper = load_recipe("paper")
    rates = [paper.learning_rate_in(epoch) for epoch in range(1, 8)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_changes_are_converted_to_the_settings_types():
    settings = load_recipe(
        "paper", ["epochs=3", "weight_decay=0", "score_item_zero=TRUE", "lr_decay_after=[1, 2]", "learning_rate=1e-2"]
    )
    assert settings.epochs == 3 and settings.weight_decay == 0.0 and settings.score_item_zero is True
    assert settings.lr_decay_after == (1, 2) and settings.learning_rate == 0.01
    assert load_recipe("paper", ["lr_decay_after="]).lr_decay_after == ()


def test_every_setting_has_a_word():
    assert all(field.metadata["word"] for field in FIELDS.values())


@pytest.mark.parametrize(
    "change, message",
    [
        ("epoch=3", "unknown setting 'epoch': did you mean 'epochs'"),
        ("zzz=3", "unknown setting 'zzz'; known: embedding_dim"),
        ("epochs", "expected key=value"),
        ("epochs=three", "expected a whole number"),
        ("epochs=2.5", "expected a whole number"),
        ("epochs=0", "at least 1"),
        ("learning_rate=nan", "expected a number"),
        ("learning_rate=-1", "at least 0"),
        ("valid_fraction=1", "below 1"),
        ("score_item_zero=maybe", "true or false"),
        ("initialization=unifrom", "did you mean 'uniform'"),
        ("lr_decay_after=1,x", "whole numbers with commas"),
        ("monitor=recall", "expected one of P@K"),
        ("monitor=P@0", "expected one of P@K"),
    ],
)
def test_a_bad_setting_is_refused_with_its_reason(change, message):
    with pytest.raises(InputError) as error:
        load_recipe("paper", [change])
    assert message in str(error.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'paper'"):
        load_recipe("papre")
    with pytest.raises(InputError, match="unknown recipe"):
        load_recipe("../recipes/paper")


def test_settings_survive_being_written_and_read():
    settings = load_recipe("paper", ["seed=5"])
    assert make_settings(vars(settings), "here") == settings


def test_the_models_config_holds_the_layers_settings():
    assert load_recipe("datawhale").model_config(7) == {
        "n_items": 7,
        "embedding_dim": 16,
        "step": 1,
        "initialization": "paddle",
        "score_item_zero": True,
    }

import dataclasses

import pytest

from paddle_srgnn.cli.train import parse_changes
from paddle_srgnn.config import FIELDS, ModelConfig, Settings, load_recipe, make_settings, recipe_names
from paddle_srgnn.errors import InputError

NUMERIC = [name for name, field in FIELDS.items() if field.type in ("int", "float", "tuple[int, ...]")]
NUMERIC.remove("learning_rate")  # 1e30 is its bound
BELOW_ONE = {"dropout", "label_smoothing", "ema_decay", "valid_fraction"}


def test_the_recipes_are_what_their_sources_say():
    assert {"datawhale", "paper", "strong"} <= set(recipe_names())
    paper = load_recipe("paper")
    assert (paper.embedding_dim, paper.step, paper.initialization, paper.score_item_zero) == (100, 1, "uniform", False)
    assert (paper.learning_rate, paper.weight_decay, paper.batch_size, paper.epochs) == (1e-3, 1e-5, 256, 4)
    assert (paper.lr_schedule, paper.lr_decay_after, paper.lr_decay) == ("steps", (3, 6), 0.1)
    assert paper.max_session_length == 70
    assert not any((paper.cosine_scale, paper.dropout, paper.positions, paper.label_smoothing, paper.ema_decay))
    strong = load_recipe("strong")
    assert (strong.embedding_dim, strong.cosine_scale, strong.dropout) == (200, 14, 0.3)
    assert (strong.positions, strong.label_smoothing, strong.ema_decay, strong.lr_schedule) == (
        70,
        0.1,
        0.999,
        "cosine",
    )
    datawhale = load_recipe("datawhale")
    assert (datawhale.embedding_dim, datawhale.initialization, datawhale.score_item_zero) == (16, "paddle", True)
    assert (datawhale.learning_rate, datawhale.batch_size, datawhale.max_session_length) == (1e-4, 256, 20)
    assert (datawhale.patience, datawhale.monitor) == (5, "recall@50")


def test_the_learning_rate_falls_after_the_named_epochs():
    paper = load_recipe("paper")
    rates = [paper.learning_rate_at(step, steps_in_epoch=2) for step in range(14)]
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 6 + [1e-5] * 2)


def test_the_cosine_schedule_rises_then_falls_to_nothing():
    settings = load_recipe("strong", {"learning_rate": "0.8", "warmup_steps": "4", "epochs": "3"})
    rates = [settings.learning_rate_at(step, steps_in_epoch=4) for step in range(13)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[6] == pytest.approx(0.4 * (1 + 2**-0.5)) and rates[8] == pytest.approx(0.4)
    assert rates[12] == pytest.approx(0, abs=1e-12)
    assert load_recipe("strong", {"epochs": "1"}).learning_rate_at(2, steps_in_epoch=3) == pytest.approx(3e-3 / 200)


def test_changes_are_converted_to_the_settings_types():
    texts = {"epochs": "3", "weight_decay": "0", "score_item_zero": "TRUE", "lr_decay_after": "[1, 2]"}
    settings = load_recipe("paper", texts | {"learning_rate": "1e-2"})
    assert settings.epochs == 3 and settings.weight_decay == 0.0 and settings.score_item_zero is True
    assert settings.lr_decay_after == (1, 2) and settings.learning_rate == 0.01
    assert load_recipe("paper", {"lr_decay_after": ""}).lr_decay_after == ()


def test_every_setting_has_a_help_text():
    assert all(field.metadata["help"] for field in FIELDS.values())


@pytest.mark.parametrize(
    "change, message",
    [
        ("epoch=3", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("zzz=3", "unknown setting 'zzz'; known: embedding_dim"),
        ("epochs", "expected key=value"),
        ("epochs=three", "expected a whole number"),
        ("epochs=2.5", "expected a whole number"),
        ("epochs=0", "at least 1"),
        ("learning_rate=nan", "expected a number"),
        ("learning_rate=-1", "at least 0"),
        ("valid_fraction=1", "below 1"),
        *((f"{name}=1{'0' * 30}", "at most" if name not in BELOW_ONE else "below 1") for name in NUMERIC),
        ("seed=" + "7" * 5000, "seed='777"),
        ("monitor=P@" + "7" * 5000, "expected one of P@K"),
        ("score_item_zero=maybe", "true or false"),
        ("initialization=unifrom", "did you mean 'uniform'"),
        ("lr_decay_after=1,x", "whole numbers separated by commas"),
        ("monitor=recall", "expected one of P@K"),
        ("monitor=P@0", "expected one of P@K"),
    ],
)
def test_a_bad_setting_is_refused_with_its_reason(change, message):
    with pytest.raises(InputError) as error:
        load_recipe("paper", parse_changes([change]))
    assert message in str(error.value) and len(str(error.value)) < 1000


def test_an_integer_too_long_to_print_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 0x" + "7" * 5000)
    with pytest.raises(InputError, match="seed=a huge int: must be at most 9223372036854775807"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_the_memory_of_a_training():
    settings = Settings(embedding_dim=10, batch_size=8, eval_batch_size=16)
    assert settings.memory(100, 1000, 1000) == (4 * 4 * 10 * (100 + 150), 4 * 16 * 100)
    averaged = Settings(embedding_dim=10, positions=50, batch_size=8, eval_batch_size=16, ema_decay=0.9)
    assert averaged.memory(100, 5, 4) == (4 * 5 * 10 * (100 + 50 + 150), 4 * 5 * 100)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'paper'"):
        load_recipe("papre")
    with pytest.raises(InputError, match="unknown recipe"):
        load_recipe("../recipes/paper")


def test_settings_survive_being_written_and_read():
    settings = load_recipe("paper", {"seed": "5"})
    assert make_settings(vars(settings), "here") == settings


def test_the_models_config_holds_the_layers_settings():
    config = load_recipe("datawhale").model_config(7)
    assert config == ModelConfig(n_items=7, embedding_dim=16)  # the reference's sizes; its switches are the defaults
    assert vars(config) == {
        "n_items": 7, "embedding_dim": 16, "step": 1, "initialization": "paddle", "score_item_zero": True,
        "cosine_scale": 0.0, "dropout": 0.0, "positions": 0,
    }  # fmt: skip


def test_the_models_config_is_made_of_the_references_dict():
    config = ModelConfig.of({"embedding_dim": 4, "step": 2, "n_items": 9, "dropout": 0.5, "n_layers": "ignored"})
    assert config == ModelConfig(n_items=9, embedding_dim=4, step=2, dropout=0.5)
    assert ModelConfig.of(config) == config


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_items": None}, "n_items=None: expected a whole number"),
        ({"step": 0}, "step=0: must be at least 1"),
        ({"dropout": 1}, "dropout=1: must be below 1"),
        ({"initialization": "xavier"}, "must be one of paddle, uniform"),
    ],
)
def test_a_bad_config_of_the_model_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.of({"embedding_dim": 4, "step": 1, "n_items": 9} | change)


def test_a_config_without_a_key_of_the_references_is_refused():
    with pytest.raises(ValueError, match="n_items is missing"):
        ModelConfig.of({"embedding_dim": 4, "step": 1})


def test_the_switches_that_change_scores():
    plain = Settings()
    assert plain.scoring_switches() == {}
    for key, value in {"score_item_zero": False, "cosine_scale": 0.5, "positions": 3}.items():
        assert dataclasses.replace(plain, **{key: value}).scoring_switches() == {key: value}
    assert dataclasses.replace(plain, embedding_dim=7, initialization="uniform", dropout=0.5).scoring_switches() == {}


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 2\nlr_decay_after: 3\n")
    assert load_recipe(str(tmp_path / "mine.yaml")) == Settings(epochs=2, lr_decay_after=(3,))
    bad = {"- 1": "found a list", "a: [": "cannot be read", "epoch: 2": "did you mean 'epochs'"}
    bad["epochs: &a 1\nstep: *a"] = "line 2: found an alias"
    for content, message in bad.items():
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(InputError, match=message):
            load_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(str(tmp_path / "absent.yaml"))

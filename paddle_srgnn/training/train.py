"""A complete training: from a dataset and a recipe to a run's folder with its report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from typing import Any

from ..config import Settings, shown
from ..datasets.sessions import SessionDataset
from ..evaluation.baselines import baselines
from ..evaluation.results import Result, evaluate
from ..files import locked
from ..protocols import protocol_of
from ..report.page import write_page
from ..run import Run, create_run, describe_environment, write_config
from ..runtime import log_to, set_device, thread_count, tune
from .loop import Training, prefixed, write_metrics
from .plan import Plan, make_plan

logger = logging.getLogger(__name__)

REPORT, LOG = "report.html", "train.log"
CHEAP = 50_000_000  # scores; the baselines rank as many in a few seconds


def train(
    data: SessionDataset | str | os.PathLike | None = None,
    recipe: str | None = None,
    out: str | os.PathLike | None = None,
    *,
    resume: bool = False,
    test: bool = True,
    device: str | None = None,
    threads: int | None = None,
    **settings: Any,
) -> Run:
    """Train SR-GNN and report on it, as `srgnn train` does, with progress on stderr.

    Args:
        data: a dataset, its folder, or "sample" (None) for the embedded one; with `resume` None is the run's.
        recipe: "paper" (None), "strong", "datawhale", or a YAML file of settings.
        out: folder of the run; None for runs/DATA-RECIPE-N.
        resume: continue the run in `out` from its last checkpoint; the weights will be those of an uninterrupted run.
        test: whether to report on the test set; otherwise on validation, to compare settings.
        device: "cpu" or "gpu"; None for a GPU if there is one.
        threads: CPU threads; None for the number that `tune` chose.
        settings: any of `config.Settings`, to override the recipe's.

    Raises:
        InputError: a setting is unknown or out of range, `out` exists, or `data` is not a dataset.
        WorkFailed: the training has diverged.
        KeyboardInterrupt: it was interrupted, after writing a checkpoint.
    """
    plan = make_plan(data, recipe, out, resume=resume, test=test, settings=settings)
    if threads is not None:
        tune(threads)
    with contextlib.nullcontext() if logger.hasHandlers() else log_to():
        result = carry_out(plan, device)
        write_report(plan, [result, *cheap_baselines(plan)])
    return result.run


def carry_out(plan: Plan, device: str | None = None) -> Result:
    """Train as planned and return the result of the reported checkpoint."""
    device = set_device(device or plan.config.environment.get("device"))
    config = dataclasses.replace(plan.config, environment=describe_environment(device, thread_count()))
    if not plan.resume:
        training = Training(plan.dataset, config.settings, plan.folder)
        create_run(plan.folder, config, plan.dataset)
    with locked(plan.folder):
        if plan.resume:
            training = _restored(plan, config.settings)
            write_config(plan.folder, config)
        with log_to(plan.folder / LOG):
            _announce(plan, config.environment)
            training.fit()
    return _tested(plan, training) if plan.test else _validated(plan, training)


def _restored(plan: Plan, settings: Settings) -> Training:
    """The training that a run's last checkpoint holds; a new one if the run was stopped before the first."""
    planned = plan.config.environment.get("threads")
    if thread_count() != planned:
        logger.warning("%d threads instead of %s: rounding will differ", thread_count(), shown(planned))
    run = Run(plan.folder)
    checkpoint = run.checkpoint("last") if run.has_checkpoint("last") else None
    return Training(plan.dataset, settings, plan.folder, checkpoint)


def _announce(plan: Plan, environment: dict) -> None:
    """Log the settings, data and environment."""
    dataset, described = plan.dataset, protocol_of(plan.dataset).describe
    logger.info("run %s: recipe %s on %s", plan.folder, plan.config.recipe, dataset.name)
    logger.info("settings: %s", ", ".join(f"{key}={value}" for key, value in vars(plan.config.settings).items()))
    parts = "; ".join(f"{part} {described(sessions)}" for part, sessions in dataset.parts.items())
    logger.info("data: %s; %d items, hash %s", parts, dataset.n_items - 1, dataset.hash[:12])
    logger.info("environment: %s", ", ".join(f"{key}={value}" for key, value in environment.items()))


def _tested(plan: Plan, training: Training) -> Result:
    """Evaluate the reported checkpoint on the test set, and add the figures to metrics.csv."""
    run = Run(plan.folder, plan.dataset)
    result = evaluate(run, plan.dataset, keep_lists=True, label="evaluating test")
    history = [dict(row) for row in training.progress.history]
    history[run.reported_epoch - 1] |= prefixed("test", result.metrics)
    write_metrics(plan.folder, history)
    return result


def _validated(plan: Plan, training: Training) -> Result:
    """The reported checkpoint's metrics on validation, measured in training."""
    run = Run(plan.folder, plan.dataset)
    row = training.progress.history[run.reported_epoch - 1]
    metrics = {key.removeprefix("valid_"): value for key, value in row.items() if key.startswith("valid_")}
    return Result(run.name, training.protocol.n_measured(training.valid), metrics, sessions=training.valid, run=run)


def cheap_baselines(plan: Plan) -> list[Result]:
    """The baselines' results on the test set, if that takes a few seconds at most."""
    dataset = plan.dataset
    if not plan.test or protocol_of(dataset).n_measured(dataset.test) * dataset.n_items > CHEAP:
        return []
    return [evaluate(baseline, dataset, keep_lists=True) for baseline in baselines(dataset)]


def write_report(plan: Plan, results: list[Result], folder=None) -> None:
    """Write the report.html of a run, or of several into the folder around them."""
    ties = protocol_of(plan.dataset).ties
    path = (folder or plan.folder) / REPORT
    write_page(path, plan.dataset, "test" if plan.test else "valid", ties, results, [])

"""Train SR-GNN. Alone, `python tools/train.py` trains on the embedded sample and ends with a table of metrics."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

import _tool

logger = logging.getLogger("paddle_srgnn.train")


def parse() -> argparse.Namespace:
    from paddle_srgnn.config import FIELDS, recipe_names

    settings = "\n".join(f"  {name:<20}{field.metadata['word']}" for name, field in FIELDS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"settings:\n{settings}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of a processed dataset, or sample, the embedded one (default: sample)")
    parser.add_argument("--recipe", help=f"one of {', '.join(recipe_names())} (default: paper)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument("--epochs", type=_tool.positive_int, metavar="N", help="passes over the training samples")
    parser.add_argument("--seed", type=int, metavar="N", help="of the initialisation and the order of samples")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/DATA-RECIPE-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its last checkpoint")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: a GPU where there is one")
    parser.add_argument("--threads", type=_tool.positive_int, metavar="N", help="of the CPU (default: all)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    from paddle_srgnn import runtime
    from paddle_srgnn.training import run as runs

    config, dataset = resumed(args) if args.resume else fresh(args)
    folder = args.out or runs.next_run_folder(dataset.name, config.recipe)
    threads = runtime.tune(args.threads)
    environment = runs.describe_environment(
        runtime.set_device(args.device or config.environment.get("device")), threads
    )

    # Only now, for they import Paddle.
    from paddle_srgnn.training.checkpoint import last_checkpoint, read_checkpoint
    from paddle_srgnn.training.loop import Training

    _tool.log_to()
    if args.resume:
        if threads != config.environment["threads"]:
            logger.warning("%d threads instead of %d: rounding will differ", threads, config.environment["threads"])
        latest = last_checkpoint(folder)
        training = Training(dataset, config.settings, folder, latest and read_checkpoint(latest))
        runs.update_run(folder, dataclasses.replace(config, environment=environment))
    else:
        training = Training(dataset, config.settings, folder)
        runs.create_run(folder, dataclasses.replace(config, environment=environment), dataset)
    _tool.log_to(folder / "train.log")
    announce(config, dataset, environment, folder)
    training.fit()
    report(config, dataset, training, folder)


def fresh(args: argparse.Namespace):
    """The configuration and the dataset of a new run."""
    from paddle_srgnn.config import load_recipe
    from paddle_srgnn.datasets import load_dataset
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.training.run import RunConfig, describe_dataset

    if args.out is not None and args.out.exists():
        raise InputError(f"--out {args.out} exists already: go on with --resume, or choose another folder")
    recipe = args.recipe or "paper"
    settings = load_recipe(recipe, changes(args))
    dataset = load_dataset(args.data or "sample")
    return RunConfig(recipe, settings, describe_dataset(dataset), {}), dataset


def resumed(args: argparse.Namespace):
    """The configuration and the dataset of the run in --out, which only --epochs may change."""
    from paddle_srgnn.config import make_settings, parse_changes
    from paddle_srgnn.datasets import load_dataset
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.training.run import read_run

    if args.out is None:
        raise InputError("--resume needs --out RUN, the run to go on with")
    config = read_run(args.out)
    if args.recipe not in (None, config.recipe):
        raise InputError(f"--recipe {args.recipe}: the run to resume has recipe {config.recipe}; leave --recipe out")
    settings = make_settings(vars(config.settings) | parse_changes(changes(args)), "--resume")
    for key, value in vars(settings).items():
        if key != "epochs" and value != (own := getattr(config.settings, key)):
            raise InputError(f"{key}={value}: the run to resume has {key}={own}; only --epochs may change")
    dataset = load_dataset(args.data or config.dataset["path"])
    if dataset.hash != config.dataset["hash"]:
        raise InputError(
            f"{args.data or config.dataset['path']}: not the dataset that {args.out} was trained on "
            f"(its hash is {dataset.hash[:12]}, the run's {config.dataset['hash'][:12]})"
        )
    return dataclasses.replace(config, settings=settings), dataset


def changes(args: argparse.Namespace) -> list[str]:
    given = {"epochs": args.epochs, "seed": args.seed}
    return args.set + [f"{key}={value}" for key, value in given.items() if value is not None]


def announce(config, dataset, environment: dict, folder: Path) -> None:
    """Log everything applied, once."""
    logger.info("run %s: recipe %s on %s", folder, config.recipe, dataset.name)
    logger.info("settings: %s", ", ".join(f"{key}={value}" for key, value in vars(config.settings).items()))
    if dataset.protocol == "course":
        sizes = ", ".join(f"{len(users)} {part} users" for part, users in dataset.parts.items())
    else:
        sizes = f"{dataset.train.n_samples} training and {dataset.test.n_samples} test samples"
    logger.info("data: %s, %d items, hash %s", sizes, dataset.n_items - 1, dataset.hash[:12])
    logger.info("environment: %s", ", ".join(f"{key}={value}" for key, value in environment.items()))


def report(config, dataset, training, folder: Path) -> None:
    """Print the metrics of the reported checkpoint, and the baselines and the ceiling where they are cheap to have."""
    from paddle_srgnn.evaluation.baselines import baseline_ranks, baselines
    from paddle_srgnn.evaluation.course import evaluate_baseline
    from paddle_srgnn.evaluation.metrics import ranking_metrics
    from paddle_srgnn.evaluation.report import metrics_table
    from paddle_srgnn.training.loop import default_ks

    ks = default_ks(dataset)
    epoch, metrics = training.test()
    results = [(f"SR-GNN, {config.recipe}, epoch {epoch}", metrics)]
    tested = [row for row in training.progress.history if "test_P@20" in row or "test_recall@20" in row]
    if tested:
        best = {name: max(row[f"test_{name}"] for row in tested) for name in metrics}
        results.append(("best-on-test, not for comparison", best))
    if dataset.protocol == "course":
        results += [(b.name, evaluate_baseline(b, dataset.test, ks)) for b in baselines(dataset)]
    elif config.dataset["path"] == "sample":
        results += [(b.name, ranking_metrics(baseline_ranks(b, dataset.test), ks)) for b in baselines(dataset)]
    print(metrics_table(results))
    print(f"\nrun: {folder}")


if __name__ == "__main__":
    _tool.run(main)

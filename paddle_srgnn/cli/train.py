"""Train SR-GNN. Alone, `srgnn train` trains on the embedded sample and ends with a table of metrics."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
import sys
from pathlib import Path

from .. import cli

logger = logging.getLogger("paddle_srgnn.train")
REPORT = "report.html"


def parser() -> argparse.ArgumentParser:
    from ..config import FIELDS, recipe_names

    settings = "\n".join(f"  {name:<20}{field.metadata['word']}" for name, field in FIELDS.items())
    parser = argparse.ArgumentParser(
        "srgnn train", description=__doc__, epilog=f"settings:\n{settings}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of a processed dataset, or sample, the embedded one (default: sample)")
    parser.add_argument("--recipe", help=f"one of {', '.join(recipe_names())} (default: paper)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument("--epochs", type=cli.positive_int, metavar="N", help="passes over the training samples")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, metavar="N", help="of the initialisation and the order of samples")
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one run for each, in RUN/seed-N")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/DATA-RECIPE-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its last checkpoint")
    parser.add_argument(
        "--no-test", action="store_true", help="report on validation and leave the test set alone, to compare settings"
    )
    cli.add_machine(parser)
    return parser


def work(args: argparse.Namespace) -> None:
    from .. import runtime

    plan = [(one, *configured(one)) for one in ([args] if args.seeds is None else of_each_seed(args))]
    threads = runtime.tune(args.threads)
    try:
        trained = [train(*run, threads) for run in plan]
    except KeyboardInterrupt as interrupt:
        if args.seeds is None:
            raise
        folder = plan[0][0].out.parent
        raise KeyboardInterrupt(f"{interrupt}; all seeds: the same command with --out {folder} --resume") from None
    if args.seeds is None:
        report(*plan[0], trained[0])
    else:
        report_seeds(plan, trained)


def of_each_seed(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of each run of --seeds; they lie in one folder."""
    from ..datasets import load_dataset
    from ..errors import InputError
    from ..run import next_run_folder

    if len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: a seed is named twice; name each once")
    if args.out is None and not args.resume:
        folder = next_run_folder(load_dataset(args.data or "sample").name, args.recipe or "paper")
    elif args.out is None:
        raise InputError("--resume needs --out, the folder of the runs to go on with")
    elif args.out.exists() and not args.resume:
        raise InputError(f"--out {args.out} exists already: go on with --resume, or choose another folder")
    else:
        folder = args.out
    runs = ((seed, folder / f"seed-{seed}") for seed in args.seeds)
    changed = ({"seed": seed, "out": run, "resume": args.resume and run.exists()} for seed, run in runs)
    return [argparse.Namespace(**vars(args) | change) for change in changed]


def configured(args: argparse.Namespace):
    """The configuration and the dataset of a run; without --out, it gets a new folder."""
    from ..run import next_run_folder

    config, dataset = resumed(args) if args.resume else fresh(args)
    args.out = args.out or next_run_folder(dataset.name, config.recipe)
    return config, dataset


def train(args: argparse.Namespace, config, dataset, threads: int):
    """One run from its beginning, or from its last checkpoint, to its end; returns the `Training`."""
    from .. import runtime
    from .. import run as runs

    device = runtime.set_device(args.device or config.environment.get("device"))
    environment = runs.describe_environment(device, threads)

    # Only now, for they import Paddle.
    from ..training.checkpoint import last_checkpoint, read_checkpoint
    from ..training.loop import Training

    if args.resume:
        if threads != config.environment["threads"]:
            logger.warning("%d threads instead of %d: rounding will differ", threads, config.environment["threads"])
        latest = last_checkpoint(args.out)
        training = Training(dataset, config.settings, args.out, latest and read_checkpoint(latest))
        runs.update_run(args.out, dataclasses.replace(config, environment=environment))
    else:
        training = Training(dataset, config.settings, args.out)
        runs.create_run(args.out, dataclasses.replace(config, environment=environment), dataset)
    with cli.logging_to(args.out / "train.log"):
        announce(config, dataset, environment, args.out)
        training.fit()
    return training


def fresh(args: argparse.Namespace):
    """The configuration and the dataset of a new run."""
    from ..config import load_recipe
    from ..datasets import load_dataset
    from ..errors import InputError
    from ..run import RunConfig, describe_dataset

    if args.out is not None and args.out.exists():
        raise InputError(f"--out {args.out} exists already: go on with --resume, or choose another folder")
    recipe = args.recipe or "paper"
    settings = load_recipe(recipe, changes(args))
    dataset = load_dataset(args.data or "sample")
    check_no_test(args, settings, dataset)
    return RunConfig(recipe, settings, describe_dataset(dataset), {}), dataset


def resumed(args: argparse.Namespace):
    """The configuration and the dataset of the run in --out, which only --epochs may change."""
    from ..config import make_settings, parse_changes
    from ..datasets import load_dataset
    from ..errors import InputError
    from ..run import read_run

    if args.out is None:
        raise InputError("--resume needs --out RUN, the run to go on with")
    config = read_run(args.out)
    if config.dataset["path"] is None:
        raise InputError(f"--resume: {args.out} holds imported weights, without an optimiser's state to go on from")
    if args.recipe not in (None, config.recipe):
        raise InputError(f"--recipe {args.recipe}: the run to resume has recipe {config.recipe}; leave --recipe out")
    settings = make_settings(vars(config.settings) | parse_changes(changes(args)), "--resume")
    for key, value in vars(settings).items():
        if key != "epochs" and value != (own := getattr(config.settings, key)):
            raise InputError(f"{key}={value}: the run to resume has {key}={own}; only --epochs may change")
    if settings.lr_schedule == "cosine" and settings.epochs != config.settings.epochs:
        raise InputError(
            f"epochs={settings.epochs}: the run to resume follows a cosine over {config.settings.epochs} epochs, "
            "which cannot change under way; train anew with --epochs"
        )
    dataset = load_dataset(args.data or config.dataset["path"])
    if dataset.hash != config.dataset["hash"]:
        raise InputError(
            f"{args.data or config.dataset['path']}: not the dataset that {args.out} was trained on "
            f"(its hash is {dataset.hash[:12]}, the run's {config.dataset['hash'][:12]})"
        )
    check_no_test(args, settings, dataset)
    return dataclasses.replace(config, settings=settings), dataset


def check_no_test(args: argparse.Namespace, settings, dataset) -> None:
    from ..errors import InputError

    if args.no_test and settings.eval_every_epoch:
        raise InputError("--no-test: eval_every_epoch=true would test every epoch; leave one of the two out")
    if args.no_test and dataset.valid is None and not settings.valid_fraction:
        raise InputError("--no-test reports on validation, and there is none: set valid_fraction too, e.g. 0.1")


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


def report(args: argparse.Namespace, config, dataset, training) -> None:
    """Print the metrics of the reported checkpoint, and the baselines and the ceiling where they are cheap to have."""
    from ..evaluation.results import metrics_table

    epoch, result = measured(args, dataset, training)
    others = [] if args.no_test else cheap_baselines(dataset)
    rows = [(f"{'validation' if args.no_test else 'SR-GNN'}, {config.recipe}, epoch {epoch}", result.metrics)]
    tested = [row for row in training.progress.history if "test_P@20" in row or "test_recall@20" in row]
    if tested:
        best = {name: max(row[f"test_{name}"] for row in tested) for name in result.metrics}
        rows.append(("best-on-test, not for comparison", best))
    print(metrics_table(rows + [(other.name, other.metrics) for other in others]))
    write_report(args, args.out, dataset, [result, *others])
    print(f"\nreport: {args.out / REPORT}\nrun: {args.out}")


def report_seeds(plan: list, trained: list) -> None:
    """Print the metrics of each seed's reported checkpoint, their mean and standard deviation, and write them down."""
    import numpy as np

    from ..evaluation.results import metrics_table
    from ..files import write_csv

    found = [measured(args, dataset, training)[1] for (args, _, dataset), training in zip(plan, trained, strict=True)]
    results = [(str(args.seed), result.metrics) for (args, _, _), result in zip(plan, found, strict=True)]
    values = np.array([list(metrics.values()) for _, metrics in results])  # (seeds, metrics)
    results.append(("mean", dict(zip(results[0][1], values.mean(axis=0).tolist(), strict=True))))
    if len(values) > 1:
        deviation = values.std(axis=0, ddof=1)  # of the runs, not of their mean
        results.append(("standard deviation", dict(zip(results[0][1], deviation.tolist(), strict=True))))
    args, config, dataset = plan[0]
    folder = args.out.parent
    write_csv(folder / "seeds.csv", [{"seed": name} | metrics for name, metrics in results])
    named = [(f"seed {name}" if name.lstrip("-").isdigit() else name, metrics) for name, metrics in results]
    others = [] if args.no_test else cheap_baselines(dataset)
    print(f"SR-GNN, {config.recipe}, {'validation' if args.no_test else 'test'}")
    print(metrics_table(named + [(other.name, other.metrics) for other in others]))
    for (own, _, _), result in zip(plan, found, strict=True):
        write_report(own, own.out, dataset, [result, *others])
    write_report(args, folder, dataset, [*found, *others])
    print(f"\nreport: {folder / REPORT}\nruns: {folder}")


def measured(args: argparse.Namespace, dataset, training):
    """The epoch that a run reports, and its `Result`."""
    from ..evaluation.ranks import Kept
    from ..evaluation.results import Result, result_of
    from ..training.checkpoint import find_checkpoint, read_checkpoint
    from ..training.loop import default_ks
    from ..training.origin import origin_of

    kept = Kept()
    epoch, metrics = training.validated() if args.no_test else training.test(kept=kept)
    origin = origin_of(read_checkpoint(find_checkpoint(args.out)))  # now that the test is in metrics.csv
    if args.no_test or kept.ranks is None:
        sessions = training.valid if args.no_test else dataset.test
        return epoch, Result(str(args.out), samples_of(sessions, dataset), metrics, origin=origin)
    ks = default_ks(dataset)
    return epoch, result_of(str(args.out), dataset.test, kept.ranks, ks, kept.top, origin=origin)


def samples_of(sessions, dataset) -> int:
    return len(sessions) if dataset.protocol == "course" else sessions.n_samples


def write_report(args: argparse.Namespace, folder: Path, dataset, results: list) -> None:
    """Write a folder's report.html."""
    from ..report.page import write_page

    command = f"{cli.command('train')} {shlex.join(args.argv)}"
    ties = "order of items" if dataset.protocol == "course" else "mean"
    write_page(folder / REPORT, dataset, "valid" if args.no_test else "test", ties, results, [], command)


def cheap_baselines(dataset) -> list:
    """The baselines' results where they take no time: on the embedded sample, and under the course's protocol."""
    from ..evaluation.baselines import TrueDistribution, baseline_ranks, baselines
    from ..evaluation.course import evaluate_baseline
    from ..evaluation.ranks import room_for_lists
    from ..evaluation.results import Result, result_of
    from ..training.loop import default_ks

    results, test, ks = [], dataset.test, default_ks(dataset)
    if dataset.protocol == "course":
        return [Result(b.name, len(test), evaluate_baseline(b, test, ks)) for b in baselines(dataset)]
    for baseline in baselines(dataset) if dataset.path is None else []:
        top = room_for_lists(test, dataset.n_items)
        ranks = baseline_ranks(baseline, test, top=top)
        is_bound = baseline.name == TrueDistribution.name
        results.append(result_of(baseline.name, test, ranks, ks, top, is_bound=is_bound))
    return results


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

"""Train SR-GNN, by default on the embedded sample, and print a table of metrics."""

from __future__ import annotations

import argparse
import functools
import shlex
from pathlib import Path

from .. import cli
from ..errors import InputError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn train", description=__doc__, formatter_class=_Help)
    parser.add_argument("--data", metavar="DIR", help="folder of a dataset, or sample (default), the embedded one")
    parser.add_argument("--recipe", metavar="NAME", help="paper (default), strong, datawhale, or a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument("--epochs", type=cli.positive_int, metavar="N", help="same as --set epochs=N")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=cli.seed, metavar="N", help="same as --set seed=N")
    seeds.add_argument("--seeds", type=cli.seed, nargs="+", metavar="N", help="one run for each seed, in RUN/seed-N")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/DATA-RECIPE-N)")
    parser.add_argument("--resume", action="store_true", help="resume the run in --out from its last checkpoint")
    parser.add_argument("--no-test", action="store_true", help="report on validation, without using the test set")
    cli.add_machine(parser)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Appends a table of the settings to the help: their defaults and each recipe's values."""

    def format_help(self) -> str:
        from ..config import FIELDS, read_recipe, recipe_names

        recipes = {name: read_recipe(name) for name in recipe_names()}
        rows = [["setting", "default", *recipes, ""]]
        for name, field in FIELDS.items():
            values = [recipe.get(name, field.default) for recipe in ({}, *recipes.values())]
            rows.append([name, *map(_shown, values), field.metadata["help"]])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return super().format_help() + "\nsettings, for --set and recipe files:\n" + "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


def work(args: argparse.Namespace) -> None:
    from ..datasets.load import load_dataset
    from ..runtime import tune
    from ..training.plan import make_plan, next_run_folder

    settings = parse_changes(args.set)
    settings |= {key: value for key in ("epochs", "seed") if (value := getattr(args, key)) is not None}
    check(args)
    plan = functools.partial(make_plan, args.data, args.recipe, test=not args.no_test)
    if args.seeds is None:
        plans = [plan(args.out, resume=args.resume, settings=settings)]
    else:
        folder = args.out or next_run_folder(load_dataset(args.data or "sample").name, args.recipe or "paper")
        runs = [(seed, folder / f"seed-{seed}") for seed in args.seeds]
        plans = [plan(run, resume=args.resume and run.exists(), settings=settings | {"seed": n}) for n, run in runs]
    tune(args.threads)

    from ..training.train import carry_out, cheap_baselines, write_report

    try:
        results = [carry_out(plan, args.device) for plan in plans]
    except KeyboardInterrupt as interrupt:
        if not str(interrupt):
            raise
        folder = plans[0].folder if args.seeds is None else plans[0].folder.parent
        again = f"--seeds {' '.join(map(str, args.seeds))} " if args.seeds else ""
        command = f"{cli.command('train')} {again}--out {shlex.quote(str(folder))} --resume"
        raise KeyboardInterrupt(f"{interrupt}; resume with: {command}") from None
    others = cheap_baselines(plans[0])
    for plan, result in zip(plans, results, strict=True):
        write_report(plan, [result, *others])
    if args.seeds is None:
        report(plans[0], results[0], others)
    else:
        report_seeds(args, plans, results, others)


def parse_changes(changes: list[str]) -> dict[str, str]:
    """Split every "key=value" of --set."""
    values = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: expected key=value, for example --set epochs=3")
        values[key.strip()] = value.strip()
    return values


def check(args: argparse.Namespace) -> None:
    """Refuse combinations of options whose errors should name the options."""
    if args.resume and args.out is None:
        raise InputError("--resume needs --out RUN, the run to resume")
    if args.out is not None and args.out.exists() and not args.resume:
        raise InputError(f"--out {args.out} exists already; pass --resume, or choose another folder")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: a seed is given twice; give each once")


def report(plan, result, others: list) -> None:
    """Print the metrics of the reported checkpoint and of the baselines."""
    from ..evaluation.results import metrics_table
    from ..training.train import REPORT

    what = "SR-GNN" if plan.test else "validation"
    rows = [(f"{what}, {plan.config.recipe}, epoch {result.run.reported_epoch}", result.metrics)]
    if plan.config.settings.eval_every_epoch:
        best = {name: max(row[f"test_{name}"] for row in result.run.metrics) for name in result.metrics}
        rows.append(("best-on-test, not for comparison", best))
    print(metrics_table(rows + [(other.name, other.metrics) for other in others]))
    print(f"\nreport: {plan.folder / REPORT}\nrun: {plan.folder}")


def report_seeds(args: argparse.Namespace, plans: list, results: list, others: list) -> None:
    """Print and save the metrics of each seed's reported checkpoint, their mean and standard deviation."""
    from ..evaluation.results import mean_and_deviation, metrics_table
    from ..files import write_csv
    from ..training.train import REPORT, write_report

    folder = plans[0].folder.parent
    rows = [(f"seed {seed}", result.metrics) for seed, result in zip(args.seeds, results, strict=True)]
    rows += mean_and_deviation(results)
    write_csv(folder / "seeds.csv", [{"seed": name.removeprefix("seed ")} | metrics for name, metrics in rows])
    write_report(plans[0], [*results, *others], folder)
    print(f"SR-GNN, {plans[0].config.recipe}, {'test' if plans[0].test else 'validation'}")
    print(metrics_table(rows + [(other.name, other.metrics) for other in others]))
    print(f"\nreport: {folder / REPORT}\nruns: {folder}")

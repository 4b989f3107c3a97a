"""Evaluate runs, checkpoints and folders of runs: rank the whole catalogue for every test sample, in one table."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli
from ..errors import InputError, WorkFailed

if TYPE_CHECKING:
    from ..datasets.sessions import SessionDataset
    from ..evaluation.audit import Audit
    from ..evaluation.results import Result

TESTED = ("P", "MRR")  # metrics whose intervals are printed and that are tested, at the largest K
PAIRS_SHOWN = 15  # in the text


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn evaluate", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_OR_CHECKPOINT",
        help="a run stands for its reported checkpoint: validation's choice under early stopping, else the last; "
        "a folder of runs stands for its runs",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="DIR", help="folder of a dataset, or sample (default: each run's own, with a table for each)"
    )
    parser.add_argument(
        "-k", nargs="+", type=cli.positive_int, help="cut-offs (default: 5 10 20; 20 50 under the course's protocol)"
    )
    parser.add_argument(
        "--split", choices=("test", "valid"), default="test",
        help="valid: the sessions that each run held out for validation (default: test)",
    )  # fmt: skip
    parser.add_argument(
        "--ties", choices=("mean", "optimistic", "pessimistic"),
        help="rank of the target among items of equal score: in their middle (mean, the default), first or last",
    )  # fmt: skip
    parser.add_argument("--baselines", action="store_true", help="add popularity, session popularity, Markov, V-SKNN")
    parser.add_argument(
        "--audit", action="store_true",
        help="check that ranks do not depend on the batch, its order or the targets, and that training ends before "
        "the test; exit code 1 if a check fails",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables, charts and examples")
    parser.add_argument("--titles", type=Path, metavar="FILE", help=cli.TITLES)
    parser.add_argument("--tsne", type=Path, metavar="FILE", help="draw the item vectors of a run by t-SNE, as PNG")
    cli.add_machine(parser)
    return parser


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


def work(args: argparse.Namespace) -> int:
    from ..datasets.titles import read_titles
    from ..run import find_runs
    from ..runtime import set_device, tune

    cli.check_folders(args.json, args.csv, args.html, args.tsne)
    args.titles = read_titles(args.titles) if args.titles else None
    paths = list(dict.fromkeys(run for path in args.runs for run in find_runs(path)))
    if args.tsne:
        from ..report import picture  # noqa: F401  a missing package is reported before any work

        if len(paths) > 1:
            raise InputError("--tsne draws one run; name one")
    if args.audit and args.split == "valid":
        raise InputError("--audit checks the test set; leave out --split valid")
    tune(args.threads)
    set_device(args.device)
    from ..datasets.load import load_dataset

    args.alone = len(paths) == 1
    groups = [Group(load_dataset(args.data), paths)] if args.data else by_dataset(paths)
    for group in groups:
        check(group, args)
    for number, group in enumerate(groups):
        measure(group, args)
        print("\n" * (number > 0), end="")
        print_results(group, args)
    write_results(groups, args)
    if args.tsne:
        draw(groups[0].results[0].run, groups[0].dataset, args)
    errors = any(result.error for group in groups for result in group.results)
    return cli.FAILED if errors or not all(one.passed for group in groups for one in group.audits) else cli.DONE


@dataclasses.dataclass
class Group:
    """The runs on one dataset and what was found of them."""

    dataset: SessionDataset
    paths: list[Path]
    unloadable: dict[Path, str] = dataclasses.field(default_factory=dict)  # why a run's own dataset cannot be opened
    ks: list[int] = dataclasses.field(default_factory=list)
    ties: str = ""
    results: list[Result] = dataclasses.field(default_factory=list)
    tests: list[dict] = dataclasses.field(default_factory=list)
    audits: list[Audit] = dataclasses.field(default_factory=list)


def by_dataset(paths: list[Path]) -> list[Group]:
    """The runs of each dataset. Those whose dataset is unknown or cannot be opened are with the first."""
    from ..run import Run

    known: dict[str, SessionDataset] = {}  # by the hash that the run recorded; the folder's may be another since
    datasets: dict[Path, SessionDataset] = {}
    errors, unloadable = [], {}
    for path in paths:
        recorded = None
        try:
            run = Run(path)
            recorded = run.dataset["hash"]
            if recorded not in known:
                known[recorded] = run.load_dataset()
            datasets[path] = known[recorded]
        except InputError as error:
            errors.append(error)
            if recorded:
                unloadable[path] = str(error)
    if not datasets:
        raise errors[0]
    first = next(iter(datasets.values()))
    groups: dict[str, Group] = {}  # by the hash of the dataset
    for path in paths:
        dataset = datasets.get(path, first)
        groups.setdefault(dataset.hash, Group(dataset, [])).paths.append(path)
    groups[first.hash].unloadable = unloadable
    return list(groups.values())


def check(group: Group, args: argparse.Namespace) -> None:
    """Check the options against the protocol of the dataset, and fill in its defaults."""
    from ..protocols import protocol_of

    protocol = protocol_of(group.dataset)
    if args.ties and args.ties not in protocol.tie_rules:
        raise InputError(f"--ties does not apply to data of protocol {protocol.name}; leave it out")
    if args.baselines and args.split == "valid" and group.dataset.valid is None:
        raise InputError("--baselines learn from all training sessions, validation's too; leave out --split valid")
    group.ks, group.ties = args.k or list(protocol.ks), args.ties or protocol.ties


def measure(group: Group, args: argparse.Namespace) -> None:
    """Fill in the results, tests and audits of a group."""
    from ..evaluation.audit import audit
    from ..evaluation.results import session_labels
    from ..evaluation.statistics import paired_tests

    group.results = evaluate_runs(group, args) + (evaluate_baselines(group, args) if args.baselines else [])
    ranked = [result for result in group.results if result.ranks is not None]
    if len({result.samples for result in ranked}) == 1:  # validation splits can be the runs' own
        ranks = {result.name: result.ranks for result in ranked}
        metrics = [f"{name}@{max(group.ks)}" for name in TESTED]
        group.tests = paired_tests(ranks, session_labels(ranked[0].sessions), metrics)
    if args.audit:
        group.audits = [audit(result.run, group.dataset) for result in group.results if result.run]


def evaluate_runs(group: Group, args: argparse.Namespace) -> list[Result]:
    """The `Result` of each run; one that failed has its error, which is raised if the run is alone."""
    from ..evaluation.results import Result, evaluate

    results, paths = [], group.paths
    for number, path in enumerate(paths, start=1):
        label = str(path) if len(paths) == 1 else f"{number}/{len(paths)} {path}"
        how = {"split": args.split, "ties": group.ties, "keep_lists": args.html is not None, "label": label}
        try:
            if path in group.unloadable:
                raise InputError(group.unloadable[path])
            results.append(evaluate(path, group.dataset, group.ks, **how))
        except (InputError, WorkFailed) as error:
            if args.alone:
                raise
            results.append(Result(str(path), error=str(error)))
    return results


def evaluate_baselines(group: Group, args: argparse.Namespace) -> list[Result]:
    from ..evaluation.baselines import baselines
    from ..evaluation.results import evaluate

    how = {"split": args.split, "ties": group.ties, "keep_lists": args.html is not None}
    return [evaluate(baseline, group.dataset, group.ks, **how) for baseline in baselines(group.dataset)]


def print_results(group: Group, args: argparse.Namespace) -> None:
    from ..evaluation.results import intervals_table, metrics_table
    from ..protocols import protocol_of

    done = [result for result in group.results if not result.error]
    ranked = [result for result in done if result.ranks is not None]
    if done:
        print(f"{group.dataset.name}, {args.split}, in percent\n")
        print(metrics_table([(one.title, one.metrics or f"failed: {one.error}") for one in group.results]))
    if ranked:
        print("\n" + intervals_table(ranked, [f"{name}@{max(group.ks)}" for name in TESTED]))
    if group.tests:
        print_tests(group.tests, ranked)
    for one in group.audits:
        print_audit(one, protocol_of(group.dataset).samples)
    for result in group.results:
        if result.error:
            print(f"{result.name}: {result.error}", file=sys.stderr)
        if result.unfinished:
            resume = f"{cli.command('train')} --out {shlex.quote(str(result.run.folder))} --resume"
            print(f"{result.name}: unfinished: {result.unfinished}; {resume} completes it", file=sys.stderr)


def print_audit(one: Audit, samples: str) -> None:
    """Print a line for each check."""
    print(f"\naudit of {one.name}, {one.samples:,} {samples}, seed {one.seed}")
    width = max(len(check.name) for check in one.checks)
    for check in one.checks:
        verdict = {True: "pass", False: "FAIL", None: "skip"}[check.passed]
        print(f"{verdict}  {check.name:<{width}}  {check.found}")


def print_tests(tests: list[dict], results: list) -> None:
    """Print the paired tests, of many results only those with the best one."""
    from ..evaluation.results import tests_table

    names, metric = [result.name for result in results], tests[0]["metric"]
    shown = tests
    if len(names) * (len(names) - 1) // 2 > PAIRS_SHOWN:
        best = max(results, key=lambda result: result.metrics[metric]).name
        shown = [test for test in tests if best in (test["a"], test["b"])]
    print("\n" + tests_table(shown, names))
    if len(shown) < len(tests):
        print(f"the pairs with the best {metric}; --json and --html have all of them")


def write_results(groups: list[Group], args: argparse.Namespace) -> None:
    from ..files import write_csv, write_json

    several = len(groups) > 1
    if args.json:
        reports = [report_of(group, args) for group in groups]
        write_json(args.json, {"datasets": reports} if several else reports[0])
    if args.csv:
        named = [({"dataset": group.dataset.name} if several else {}, group.results) for group in groups]
        write_csv(args.csv, [start | csv_row(result) for start, results in named for result in results])
    for number, group in enumerate(groups, start=1):
        if args.html:
            from ..report.page import write_page

            path = args.html.with_stem(f"{args.html.stem}-{number}") if several else args.html
            command = f"{cli.command('evaluate')} {shlex.join(args.argv)}"
            look = (group.dataset, args.split, group.ties, group.results, group.tests)
            write_page(path, *look, command, args.titles)
            print(f"\npage: {path}" + (f" ({group.dataset.name})" if several else ""))


def report_of(group: Group, args: argparse.Namespace) -> dict:
    """What --json writes of one dataset."""
    dataset = group.dataset
    about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "split": args.split, "ties": group.ties}
    parts = ("samples", "metrics", "intervals", "error")
    rows = [
        {"checkpoint": result.name}
        | {part: getattr(result, part) for part in parts}
        | ({"unfinished": result.unfinished} if result.unfinished else {})
        for result in group.results
    ]
    report = about | {"results": rows, "tests": group.tests}
    if args.audit:
        report["audit"] = [
            {"checkpoint": one.name, "samples": one.samples, "seed": one.seed, "passed": one.passed}
            | {"checks": [check._asdict() for check in one.checks]}
            for one in group.audits
        ]
    return report


def csv_row(result: Result) -> dict:
    row = {"checkpoint": result.name, "samples": result.samples, "error": result.error}
    if result.unfinished:
        row["unfinished"] = result.unfinished
    for name, value in result.metrics.items():
        row[name] = value
        if name in result.intervals:
            row[f"{name}_low"], row[f"{name}_high"] = result.intervals[name]
    return row


def draw(run, dataset, args: argparse.Namespace) -> None:
    from ..report.picture import draw_items

    vectors = run.model().item_emb.weight.numpy()
    labels = args.titles and [args.titles.get(raw_id, "") for raw_id in dataset.item_ids]
    name = f"{dataset.name}, items of {run.folder.resolve().name}"
    draw_items(vectors, dataset.item_clicks, name, args.tsne, labels)
    print(f"\npicture: {args.tsne}")

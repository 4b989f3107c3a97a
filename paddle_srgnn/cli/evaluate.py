"""Evaluate runs, checkpoints and folders of runs: rank the whole catalogue for every test sample, in one table."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from .. import cli
from ..errors import InputError, WorkFailed

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
        "--data", metavar="DIR", help="folder of a dataset, or sample (default: the dataset of the first run)"
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
        from ..report import picture  # noqa: F401  whatever it lacks is said before any work

        if len(paths) > 1:
            raise InputError("--tsne draws one run; name one")
    tune(args.threads)
    set_device(args.device)
    from ..datasets.load import load_dataset
    from ..evaluation.results import session_labels
    from ..evaluation.statistics import paired_tests
    from ..protocols import protocol_of

    dataset = load_dataset(args.data) if args.data else first_dataset(paths)
    protocol = protocol_of(dataset)
    if args.ties and args.ties not in protocol.tie_rules:
        raise InputError(f"--ties does not apply to data of protocol {protocol.name}; leave it out")
    if args.baselines and args.split == "valid" and dataset.valid is None:
        raise InputError("--baselines learn from all training sessions, validation's too; leave out --split valid")
    args.k, args.ties = args.k or list(protocol.ks), args.ties or protocol.ties
    results = [*evaluate_runs(paths, dataset, args), *(evaluate_baselines(dataset, args) if args.baselines else [])]
    ranked = [result for result in results if result.ranks is not None]
    tests = []
    if len({result.samples for result in ranked}) == 1:  # validation splits can be the runs' own
        ranks = {result.name: result.ranks for result in ranked}
        tests = paired_tests(ranks, session_labels(ranked[0].sessions), [f"{name}@{max(args.k)}" for name in TESTED])
    print_results(dataset, results, tests, args)
    write_results(dataset, results, tests, args)
    if args.tsne:
        draw(results[0].run, dataset, args)
    return cli.FAILED if any(result.error for result in results) else cli.DONE


def first_dataset(paths: list[Path]):
    """The dataset of the first run that can be read."""
    from ..run import Run

    errors = []
    for path in paths:
        try:
            return Run(path).load_dataset()
        except InputError as error:
            errors.append(error)
    raise errors[0]


def evaluate_runs(paths: list[Path], dataset, args: argparse.Namespace) -> list:
    """The `Result` of each run; one that failed has its error, which is raised if the run is alone."""
    from ..evaluation.results import Result, evaluate

    results = []
    for number, path in enumerate(paths, start=1):
        label = str(path) if len(paths) == 1 else f"{number}/{len(paths)} {path}"
        how = {"split": args.split, "ties": args.ties, "keep_lists": args.html is not None, "label": label}
        try:
            results.append(evaluate(path, dataset, args.k, **how))
        except (InputError, WorkFailed) as error:
            if len(paths) == 1:
                raise
            results.append(Result(str(path), error=str(error)))
    return results


def evaluate_baselines(dataset, args: argparse.Namespace) -> list:
    from ..evaluation.baselines import baselines
    from ..evaluation.results import evaluate

    how = {"split": args.split, "ties": args.ties, "keep_lists": args.html is not None}
    return [evaluate(baseline, dataset, args.k, **how) for baseline in baselines(dataset)]


def print_results(dataset, results: list, tests: list[dict], args: argparse.Namespace) -> None:
    from ..evaluation.results import intervals_table, metrics_table

    done = [result for result in results if not result.error]
    ranked = [result for result in done if result.ranks is not None]
    if done:
        print(f"{dataset.name}, {args.split}, in percent\n")
        print(metrics_table([(result.name, result.metrics or f"failed: {result.error}") for result in results]))
    if ranked:
        print("\n" + intervals_table(ranked, [f"{name}@{max(args.k)}" for name in TESTED]))
    if tests:
        print_tests(tests, ranked)
    for failure in (result for result in results if result.error):
        print(f"{failure.name}: {failure.error}", file=sys.stderr)


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


def write_results(dataset, results: list, tests: list[dict], args: argparse.Namespace) -> None:
    from ..files import write_csv, write_json

    if args.json:
        about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "split": args.split, "ties": args.ties}
        parts = ("samples", "metrics", "intervals", "error")
        rows = [{"checkpoint": result.name} | {part: getattr(result, part) for part in parts} for result in results]
        write_json(args.json, about | {"results": rows, "tests": tests})
    if args.csv:
        write_csv(args.csv, [csv_row(result) for result in results])
    if args.html:
        from ..report.page import write_page

        command = f"{cli.command('evaluate')} {shlex.join(args.argv)}"
        write_page(args.html, dataset, args.split, args.ties, results, tests, command, args.titles)
        print(f"\npage: {args.html}")


def csv_row(result) -> dict:
    row = {"checkpoint": result.name, "samples": result.samples, "error": result.error}
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

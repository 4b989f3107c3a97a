"""Evaluate runs, checkpoints and folders of runs: ranks over the whole catalogue, one table for all of them."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from .. import cli

TESTED = ("P", "MRR")  # metrics whose intervals are printed and that are tested, at the largest K
PAIRS_SHOWN = 15  # in the text


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn evaluate", description=__doc__)
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, metavar="RUN_OR_CHECKPOINT",
        help="a run stands for its reported checkpoint: validation's choice under early stopping, else the last; "
        "a folder of runs for its runs",
    )  # fmt: skip
    parser.add_argument("--data", help="folder of a dataset, or sample (default: the one of the first checkpoint)")
    parser.add_argument(
        "-k", nargs="+", type=cli.positive_int, help="default: 5 10 20; on data of the course's protocol 20 50"
    )
    parser.add_argument(
        "--split", choices=("test", "valid"), default="test",
        help="valid: as split off in the run, or the users for validation under the course's protocol",
    )  # fmt: skip
    parser.add_argument(
        "--ties", choices=("mean", "optimistic", "pessimistic"),
        help="the rank of a target among items of equal score: in their middle (default), first, or last",
    )  # fmt: skip
    parser.add_argument("--baselines", action="store_true", help="add popularity, session popularity, Markov, V-SKNN")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results as CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables, charts and examples")
    parser.add_argument("--titles", type=Path, metavar="FILE", help=cli.TITLES)
    parser.add_argument("--tsne", type=Path, metavar="FILE", help="draw the run's item vectors, by t-SNE, as PNG")
    cli.add_machine(parser)
    return parser


def work(args: argparse.Namespace) -> int:
    from .. import runtime
    from ..datasets import load_dataset
    from ..errors import InputError
    from ..evaluation.results import intervals_table, metrics_table
    from ..datasets.titles import read_titles
    from ..files import write_csv, write_json
    from ..run import find_runs

    for path in (args.json, args.csv, args.html, args.tsne):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist")
    titles = read_titles(args.titles) if args.titles else None
    args.checkpoints = list(dict.fromkeys(run for path in args.checkpoints for run in find_runs(path)))
    if args.tsne:
        import paddle_srgnn.report.picture  # noqa: F401  what it lacks is said before any work

        if len(args.checkpoints) > 1:
            raise InputError("--tsne draws one run: name one")
    runtime.tune(args.threads)
    runtime.set_device(args.device)

    dataset = load_dataset(args.data or data_of(args.checkpoints))
    fit_to_protocol(args, dataset.protocol)
    results = evaluate_all(dataset, args)
    done = [result for result in results if not result.error]
    ranked = [result for result in done if result.ranks is not None]  # the course's lists have no ranks
    tests = tests_between(ranked, args)
    if done:
        print(f"{dataset.name}, {args.split}, in percent\n")
        print(metrics_table([(result.name, result.metrics or f"failed: {result.error}") for result in results]))
    if ranked:
        print("\n" + intervals_table(ranked, [f"{name}@{max(args.k)}" for name in TESTED]))
    if tests:
        print_tests(tests, ranked)
    for failure in (result for result in results if result.error):
        print(f"{failure.name}: {failure.error}", file=sys.stderr)
    if args.json:
        about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "split": args.split, "ties": args.ties}
        write_json(args.json, about | {"results": [json_row(result) for result in results], "tests": tests})
    if args.csv:
        write_csv(args.csv, [csv_row(result) for result in results])
    if args.html:
        from ..report.page import write_page

        command = f"{cli.command('evaluate')} {shlex.join(args.argv)}"
        write_page(args.html, dataset, args.split, args.ties, results, tests, command, titles)
        print(f"\npage: {args.html}")
    if args.tsne:
        draw(args.checkpoints[0], dataset, args.tsne, titles)
    return cli.DONE if len(done) == len(results) else cli.FAILED


def fit_to_protocol(args: argparse.Namespace, protocol: str) -> None:
    """The defaults of the data's protocol, and a refusal of what does not apply to it."""
    from ..errors import InputError

    if protocol == "course":
        if args.ties:
            raise InputError("--ties does not apply to the course's lists, where equal items stand in order of number")
        args.k, args.ties = args.k or [20, 50], "order of items"
        return
    if args.baselines and args.split != "test":
        raise InputError("--baselines are trained on all training sessions, validation's too: leave out --split valid")
    args.k, args.ties = args.k or [5, 10, 20], args.ties or "mean"


def json_row(result) -> dict:
    parts = ("samples", "metrics", "intervals", "error")
    return {"checkpoint": result.name} | {part: getattr(result, part) for part in parts}


def csv_row(result) -> dict:
    row = {"checkpoint": result.name, "samples": result.samples, "error": result.error}
    for name, value in result.metrics.items():
        row[name] = value
        if name in result.intervals:
            row[f"{name}_low"], row[f"{name}_high"] = result.intervals[name]
    return row


def draw(path: Path, dataset, file: Path, titles: dict[str, str] | None) -> None:
    """The picture of a checkpoint's item vectors."""
    from ..report.picture import draw_items
    from ..training.checkpoint import find_checkpoint, load_model, read_checkpoint

    vectors = load_model(read_checkpoint(find_checkpoint(path))).item_emb.weight.numpy()
    labels = titles and [titles.get(raw_id, "") for raw_id in dataset.item_ids]
    draw_items(vectors, dataset.item_clicks, f"{dataset.name}, items of {path.resolve().name}", file, labels)
    print(f"\npicture: {file}")


def data_of(paths: list[Path]) -> str:
    """The dataset of the first checkpoint that can be read."""
    from ..errors import InputError
    from ..training.checkpoint import find_checkpoint, own_data, read_checkpoint

    errors = []
    for path in paths:
        try:
            return own_data(read_checkpoint(find_checkpoint(path)))
        except InputError as error:
            errors.append(error)
    raise errors[0]


def evaluate_all(dataset, args: argparse.Namespace) -> list:
    """The `Result` of each checkpoint and baseline; one that failed has its error, which is raised if it is alone."""
    from ..errors import InputError, WorkFailed
    from ..evaluation.results import Result

    results = []
    for number, path in enumerate(args.checkpoints, start=1):
        label = str(path) if len(args.checkpoints) == 1 else f"{number}/{len(args.checkpoints)} {path}"
        try:
            results.append(evaluate_one(path, dataset, args, label))
        except (InputError, WorkFailed) as error:
            if len(args.checkpoints) == 1:
                raise
            results.append(Result(str(path), error=str(error)))
    return results + (baseline_results(dataset, args) if args.baselines else [])


def tests_between(results: list, args: argparse.Namespace) -> list[dict]:
    """The paired tests, where all results are of the same samples: validation splits can be the runs' own."""
    from ..evaluation.results import session_labels
    from ..evaluation.statistics import paired_tests

    if len({result.samples for result in results}) != 1:  # none, or of different splits
        return []
    ranks = {result.name: result.ranks for result in results}
    return paired_tests(ranks, session_labels(results[0].sessions), [f"{name}@{max(args.k)}" for name in TESTED])


def print_tests(tests: list[dict], results: list) -> None:
    """Print the tests, of many results only those with the best one."""
    from ..evaluation.results import tests_table

    names, metric = [result.name for result in results], tests[0]["metric"]
    shown = tests
    if len(names) * (len(names) - 1) // 2 > PAIRS_SHOWN:
        best = max(results, key=lambda result: result.metrics[metric]).name
        shown = [test for test in tests if best in (test["a"], test["b"])]
    print("\n" + tests_table(shown, names))
    if len(shown) < len(tests):
        print(f"the pairs with the best {metric}; --json and --html have all of them")


def baseline_results(dataset, args: argparse.Namespace) -> list:
    """The `Result` of each baseline, with a progress bar."""
    from ..evaluation.baselines import TrueDistribution, baseline_ranks, baselines
    from ..evaluation.course import evaluate_baseline
    from ..evaluation.ranks import progress_bar, room_for_lists
    from ..evaluation.results import Result, result_of

    if dataset.protocol == "course":
        users = dataset.parts[args.split]
        return [Result(b.name, len(users), evaluate_baseline(b, users, tuple(args.k))) for b in baselines(dataset)]
    results, test = [], dataset.test
    for baseline in baselines(dataset):
        top = room_for_lists(test, dataset.n_items) if args.html else None
        with progress_bar(baseline.name, test.n_samples) as bar:
            ranks = baseline_ranks(baseline, test, args.ties, advance=bar.update, top=top)
        is_bound = baseline.name == TrueDistribution.name
        results.append(result_of(baseline.name, test, ranks, args.k, top, is_bound=is_bound))
    return results


def evaluate_one(path: Path, dataset, args: argparse.Namespace, label: str):
    """The `Result` of a checkpoint, from one pass over the samples."""
    from ..errors import InputError, WorkFailed
    from ..evaluation.course import evaluate_course
    from ..evaluation.ranks import Kept, model_ranks
    from ..evaluation.results import Result, result_of
    from ..training.checkpoint import check_fits, find_checkpoint, load_model, read_checkpoint
    from ..training.loop import split_validation
    from ..training.origin import origin_of

    checkpoint = read_checkpoint(find_checkpoint(path))
    check_fits(checkpoint, dataset)
    sessions = dataset.test if args.split == "test" else split_validation(dataset, checkpoint.settings)[1]
    if sessions is None:
        raise InputError(f"{path}: --split valid, but this run was trained without a validation set (valid_fraction=0)")
    model, settings, origin = load_model(checkpoint), checkpoint.settings, origin_of(checkpoint)
    kept = Kept() if args.html else None
    try:
        if dataset.protocol == "course":
            metrics = evaluate_course(model, sessions, settings, tuple(args.k), label)
            return Result(str(path), len(sessions), metrics, origin=origin)
        ranks = model_ranks(model, sessions, settings, label, args.ties, kept)
    except WorkFailed as error:
        raise WorkFailed(f"{checkpoint.folder}: {error}") from None
    return result_of(str(path), sessions, ranks, args.k, kept and kept.top, origin=origin)


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

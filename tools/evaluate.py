"""Evaluate runs and checkpoints: ranks over the whole catalogue, one table for all of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _tool

TESTED = ("P", "MRR")  # metrics whose intervals are printed and that are tested, at the largest K


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, metavar="RUN_OR_CHECKPOINT",
        help="a run stands for its reported checkpoint: validation's choice under early stopping, else the last",
    )  # fmt: skip
    parser.add_argument("--data", help="folder of a dataset, or sample (default: the one of the first checkpoint)")
    parser.add_argument(
        "-k", nargs="+", type=_tool.positive_int, help="default: 5 10 20; on data of the course's protocol 20 50"
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
    parser.add_argument("--tsne", type=Path, metavar="FILE", help="draw the run's item vectors, by t-SNE, as PNG")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: a GPU where there is one")
    parser.add_argument("--threads", type=_tool.positive_int, metavar="N", help="of the CPU (default: all)")
    return parser.parse_args()


def main() -> int:
    args = parse()
    from paddle_srgnn import runtime
    from paddle_srgnn.datasets import load_dataset
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.evaluation.report import intervals_table, metrics_table, tests_table
    from paddle_srgnn.files import write_csv, write_json

    for path in (args.json, args.csv, args.tsne):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist")
    if args.tsne and len(args.checkpoints) > 1:
        raise InputError("--tsne draws one run: name one")
    runtime.tune(args.threads)
    runtime.set_device(args.device)
    _tool.log_to()

    dataset = load_dataset(args.data or data_of(args.checkpoints))
    fit_to_protocol(args, dataset.protocol)
    results, failures, tests = evaluate_all(dataset, args)
    if results:
        print(f"{dataset.name}, {args.split}, in percent\n")
        print(metrics_table([(result["checkpoint"], result["metrics"]) for result in results]))
    if results and dataset.protocol == "sessions":
        shown = [f"{name}@{max(args.k)}" for name in TESTED]
        print("\n" + intervals_table([(result["checkpoint"], result) for result in results], shown))
    if tests:
        print("\n" + tests_table(tests, [result["checkpoint"] for result in results]))
    for failure in failures:
        print(f"{failure['checkpoint']}: {failure['error']}", file=sys.stderr)
    if args.json:
        about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "split": args.split, "ties": args.ties}
        write_json(args.json, about | {"results": results + failures, "tests": tests})
    if args.csv:
        write_csv(args.csv, [csv_row(result) for result in results + failures])
    if args.tsne:
        draw(args.checkpoints[0], dataset, args.tsne)
    return _tool.FAILED if failures else _tool.DONE


def fit_to_protocol(args: argparse.Namespace, protocol: str) -> None:
    """The defaults of the data's protocol, and a refusal of what does not apply to it."""
    from paddle_srgnn.errors import InputError

    if protocol == "course":
        if args.ties:
            raise InputError("--ties does not apply to the course's lists, where equal items stand in order of number")
        args.k, args.ties = args.k or [20, 50], "order of items"
        return
    if args.baselines and args.split != "test":
        raise InputError("--baselines are trained on all training sessions, validation's too: leave out --split valid")
    args.k, args.ties = args.k or [5, 10, 20], args.ties or "mean"


def csv_row(result: dict) -> dict:
    row = {key: result[key] for key in ("checkpoint", "samples", "error")}
    for name, value in result["metrics"].items():
        row[name] = value
        if name in result["intervals"]:
            row[f"{name}_low"], row[f"{name}_high"] = result["intervals"][name]
    return row


def draw(path: Path, dataset, file: Path) -> None:
    """The picture of a checkpoint's item vectors."""
    from paddle_srgnn.evaluation.picture import draw_items
    from paddle_srgnn.training.checkpoint import find_checkpoint, load_model, read_checkpoint

    vectors = load_model(read_checkpoint(find_checkpoint(path))).item_emb.weight.numpy()
    draw_items(vectors, dataset.item_clicks, f"{dataset.name}, items of {path.resolve().name}", file)


def data_of(paths: list[Path]) -> str:
    """The dataset of the first checkpoint that can be read."""
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.training.checkpoint import find_checkpoint, own_data, read_checkpoint

    errors = []
    for path in paths:
        try:
            return own_data(read_checkpoint(find_checkpoint(path)))
        except InputError as error:
            errors.append(error)
    raise errors[0]


def evaluate_all(dataset, args: argparse.Namespace) -> tuple[list[dict], list[dict], list[dict]]:
    """A result for each checkpoint and baseline; for each that failed its error, raised if it is alone; the tests."""
    from paddle_srgnn.errors import InputError, WorkFailed
    from paddle_srgnn.evaluation.statistics import paired_tests

    of_course = dataset.protocol == "course"
    results, failures, ranks, sessions = [], [], {}, None
    for path in args.checkpoints:
        try:
            if of_course:
                results.append(course_result(path, dataset, args))
                continue
            sessions, ranks[str(path)] = evaluate_one(path, dataset, args)
            results.append(result_of(str(path), sessions, ranks[str(path)], args.k))
        except (InputError, WorkFailed) as error:
            if len(args.checkpoints) == 1:
                raise
            empty = {"checkpoint": str(path), "samples": 0, "metrics": {}, "intervals": {}}
            failures.append(empty | {"error": str(error)})
    if args.baselines and of_course:
        results += course_baselines(dataset, args)
    elif args.baselines:
        sessions = dataset.test
        for name, of_baseline in baseline_results(dataset, args):
            ranks[name] = of_baseline
            results.append(result_of(name, sessions, of_baseline, args.k))
    if len({len(of_one) for of_one in ranks.values()}) != 1:  # none, or of different validation splits
        return results, failures, []
    metrics = [f"{name}@{max(args.k)}" for name in TESTED]
    return results, failures, paired_tests(ranks, session_labels(sessions), metrics)


def result_of(name: str, sessions, ranks, ks: list[int]) -> dict:
    from paddle_srgnn.evaluation.metrics import ranking_metrics
    from paddle_srgnn.evaluation.statistics import session_intervals

    ks = sorted(set(ks))
    metrics, intervals = ranking_metrics(ranks, ks), session_intervals(ranks, session_labels(sessions), ks)
    return {"checkpoint": name, "samples": len(ranks), "metrics": metrics, "intervals": intervals, "error": None}


def session_labels(sessions):
    """What the samples of a session have in common: where it starts."""
    return sessions.sample_starts(sessions.sample_positions())


def baseline_results(dataset, args: argparse.Namespace):
    """Each baseline's name and ranks, with a progress bar."""
    from paddle_srgnn.evaluation.baselines import baseline_ranks, baselines
    from paddle_srgnn.evaluation.ranking import progress_bar

    for baseline in baselines(dataset):
        with progress_bar(baseline.name, dataset.test.n_samples) as bar:
            yield baseline.name, baseline_ranks(baseline, dataset.test, args.ties, advance=bar.update)


def evaluate_one(path: Path, dataset, args: argparse.Namespace):
    """The sessions that a checkpoint is evaluated on, and the ranks of its samples."""
    from paddle_srgnn.errors import WorkFailed
    from paddle_srgnn.evaluation.ranking import model_ranks
    from paddle_srgnn.training.checkpoint import load_model

    checkpoint, sessions = opened(path, dataset, args.split)
    try:
        return sessions, model_ranks(load_model(checkpoint), sessions, checkpoint.settings, str(path), args.ties)
    except WorkFailed as error:
        raise WorkFailed(f"{checkpoint.folder}: {error}") from None


def opened(path: Path, dataset, split: str):
    """A checkpoint, and what it is evaluated on."""
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.training.checkpoint import check_fits, find_checkpoint, read_checkpoint
    from paddle_srgnn.training.loop import split_validation

    checkpoint = read_checkpoint(find_checkpoint(path))
    check_fits(checkpoint, dataset)
    sessions = dataset.test if split == "test" else split_validation(dataset, checkpoint.settings)[1]
    if sessions is None:
        raise InputError(f"{path}: --split valid, but this run was trained without a validation set (valid_fraction=0)")
    return checkpoint, sessions


def course_result(path: Path, dataset, args: argparse.Namespace) -> dict:
    from paddle_srgnn.errors import WorkFailed
    from paddle_srgnn.evaluation.course import evaluate_course
    from paddle_srgnn.training.checkpoint import load_model

    checkpoint, users = opened(path, dataset, args.split)
    try:
        metrics = evaluate_course(load_model(checkpoint), users, checkpoint.settings, tuple(args.k), str(path))
    except WorkFailed as error:
        raise WorkFailed(f"{checkpoint.folder}: {error}") from None
    return {"checkpoint": str(path), "samples": len(users), "metrics": metrics, "intervals": {}, "error": None}


def course_baselines(dataset, args: argparse.Namespace) -> list[dict]:
    from paddle_srgnn.evaluation.baselines import baselines
    from paddle_srgnn.evaluation.course import evaluate_baseline

    users = dataset.parts[args.split]
    common = {"samples": len(users), "intervals": {}, "error": None}
    return [
        {"checkpoint": baseline.name, "metrics": evaluate_baseline(baseline, users, tuple(args.k))} | common
        for baseline in baselines(dataset)
    ]


if __name__ == "__main__":
    _tool.run(main)

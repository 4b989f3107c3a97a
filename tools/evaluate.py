"""Evaluate runs and checkpoints: ranks over the whole catalogue, one table for all of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _tool


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
    parser.add_argument("--baselines", action="store_true", help="add popularity and item-to-item Markov to the table")
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
    from paddle_srgnn.evaluation.report import metrics_table
    from paddle_srgnn.files import write_csv, write_json

    for path in (args.json, args.csv, args.tsne):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist")
    if args.tsne:
        from paddle_srgnn.evaluation.picture import draw_items

        if len(args.checkpoints) > 1:
            raise InputError("--tsne draws one run: name one")
    runtime.tune(args.threads)
    runtime.set_device(args.device)
    _tool.log_to()

    dataset = load_dataset(args.data or data_of(args.checkpoints))
    fit_to_protocol(args, dataset.protocol)
    results, failures = evaluate_all(dataset, args)
    if results:
        print(f"{dataset.name}, {args.split}, in percent\n")
        print(metrics_table([(result["checkpoint"], result["metrics"]) for result in results]))
    for failure in failures:
        print(f"{failure['checkpoint']}: {failure['error']}", file=sys.stderr)
    if args.json:
        about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "split": args.split, "ties": args.ties}
        write_json(args.json, about | {"results": results + failures})
    if args.csv:
        fields = ("checkpoint", "samples", "error")
        write_csv(args.csv, [{key: row[key] for key in fields} | row["metrics"] for row in results + failures])
    if args.tsne:
        title = f"{dataset.name}, items of {args.checkpoints[0].resolve().name}"
        draw_items(item_vectors(args.checkpoints[0]), dataset.item_clicks, title, args.tsne)
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


def item_vectors(path: Path):
    """The item table of a checkpoint, float32 (n_items, d)."""
    from paddle_srgnn.training.checkpoint import find_checkpoint, load_model, read_checkpoint

    return load_model(read_checkpoint(find_checkpoint(path))).item_emb.weight.numpy()


def data_of(paths: list[Path]) -> str:
    """The dataset of the first checkpoint that can be read."""
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.training.checkpoint import find_checkpoint, read_checkpoint

    errors = []
    for path in paths:
        try:
            return read_checkpoint(find_checkpoint(path)).dataset["path"]
        except InputError as error:
            errors.append(error)
    raise errors[0]


def evaluate_all(dataset, args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """A result for each checkpoint and baseline, and for each that failed its error; alone, it is raised."""
    from paddle_srgnn.errors import InputError, WorkFailed

    results, failures = [], []
    for path in args.checkpoints:
        result = {"checkpoint": str(path), "samples": 0, "metrics": {}, "intervals": {}, "error": None}
        try:
            result["samples"], result["metrics"] = evaluate_one(path, dataset, args)
            results.append(result)
        except (InputError, WorkFailed) as error:
            if len(args.checkpoints) == 1:
                raise
            failures.append(result | {"error": str(error)})
    if args.baselines:
        results += baseline_results(dataset, args)
    return results, failures


def baseline_results(dataset, args: argparse.Namespace) -> list[dict]:
    from paddle_srgnn.evaluation.baselines import baseline_ranks, baselines
    from paddle_srgnn.evaluation.course import evaluate_baseline
    from paddle_srgnn.evaluation.metrics import ranking_metrics

    results = []
    for baseline in baselines(dataset):
        if dataset.protocol == "course":
            users = dataset.parts[args.split]
            samples, metrics = len(users), evaluate_baseline(baseline, users, tuple(args.k))
        else:
            samples = dataset.test.n_samples
            metrics = ranking_metrics(baseline_ranks(baseline, dataset.test, args.ties), sorted(set(args.k)))
        row = {"checkpoint": baseline.name, "samples": samples, "metrics": metrics, "intervals": {}, "error": None}
        results.append(row)
    return results


def evaluate_one(path: Path, dataset, args: argparse.Namespace) -> tuple[int, dict[str, float]]:
    from paddle_srgnn.errors import InputError, WorkFailed
    from paddle_srgnn.evaluation.course import evaluate_course
    from paddle_srgnn.evaluation.ranking import evaluate
    from paddle_srgnn.training.checkpoint import check_fits, find_checkpoint, load_model, read_checkpoint
    from paddle_srgnn.training.loop import split_validation

    checkpoint = read_checkpoint(find_checkpoint(path))
    check_fits(checkpoint, dataset)
    sessions = dataset.test if args.split == "test" else split_validation(dataset, checkpoint.settings)[1]
    if sessions is None:
        raise InputError(f"{path}: --split valid, but this run was trained without a validation set (valid_fraction=0)")
    model, settings, ks = load_model(checkpoint), checkpoint.settings, tuple(args.k)
    try:
        if dataset.protocol == "course":
            return len(sessions), evaluate_course(model, sessions, settings, ks, str(path))
        metrics = evaluate(model, sessions, settings, ks, str(path), args.ties)
    except WorkFailed as error:
        raise WorkFailed(f"{checkpoint.folder}: {error}") from None
    return sessions.n_samples, metrics


if __name__ == "__main__":
    _tool.run(main)

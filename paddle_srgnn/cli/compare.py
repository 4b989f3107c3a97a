"""Compare with another implementation of SR-GNN, with the same weights on the same batches: results and speed.

Exit code 0 says that everything agrees within the tolerances, 1 that something differs or that the other implementation
fails, in its own words.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
from pathlib import Path

from .. import cli


def parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("srgnn compare", description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--reference", required=True, metavar="FILE.py[:CLASS]",
        help="the other implementation, with the reference's interface (default class: SRGNN); this RUNS the file",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, metavar="RUN",
        help="compare with trained weights on real test samples, instead of random weights on made-up batches",
    )  # fmt: skip
    parser.add_argument("--data", help="the dataset of the test samples (default: the checkpoint's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every difference as JSON")
    cli.add_machine(parser, device=False)
    return parser


def work(args: argparse.Namespace) -> int:
    from .. import runtime
    from ..benchmarks.workload import load_reference
    from ..errors import InputError

    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise InputError(f"{args.json}: its folder does not exist")
    if args.data and not args.checkpoint:
        raise InputError("--data needs --checkpoint RUN, whose weights are compared on its test samples")
    if not Path(args.reference.partition(":")[0]).is_file():
        raise InputError(f"--reference {args.reference}: no such file")
    runtime.tune(args.threads)
    runtime.set_device("cpu")

    from .. import comparison

    sizes, weights, batches = trained(args) if args.checkpoint else made_up()
    print(f"running the code in {args.reference}", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):  # whatever that code prints is no result of ours
        found = comparison.compare(load_reference(args.reference), sizes, weights, batches)
    show(found)
    if args.json:
        write(args, sizes, found)
    return cli.DONE if found.passed else cli.FAILED


def made_up():
    from ..comparison import SIZES, random_batches, random_weights

    return SIZES, random_weights(SIZES), random_batches(SIZES["n_items"])


def trained(args: argparse.Namespace):
    from ..comparison import of_run
    from ..run import Run

    return of_run(Run(args.checkpoint), args.data)


def show(found) -> None:
    """A row of the worst differences for each batch, then what differs or fails, then the verdict."""
    from ..evaluation.results import format_table

    columns: dict[str, dict[str, list]] = {}
    for difference in found.differences:
        columns.setdefault(difference.batch, {}).setdefault(column_of(difference.quantity), []).append(difference)
    rows = []
    for batch, by_column in columns.items():
        ours, theirs = found.step_ms[batch]
        cells = [cell(differences) for differences in by_column.values()]
        rows.append([batch, *cells, ours, theirs, f"{theirs / ours:.1f}x"])
    if rows:
        header = ["largest difference", *next(iter(columns.values())), "our step, ms", "reference", "ratio"]
        print(format_table(header, rows), end="\n\n")
        print("allowed: " + tolerances())
    for line in failures(found):
        print(line, file=sys.stderr)
    if found.passed:
        print(f"all {len(found.differences)} comparisons pass")


def column_of(quantity: str) -> str:
    from ..comparison import ADAM_LOSSES

    short = {"alias_inputs": "integers", "items": "integers", "mask": "integers", ADAM_LOSSES: "Adam"}
    return "gradients" if quantity.startswith("gradient") else short.get(quantity, quantity)


def worst(differences: list):
    """What to show of several: one that fails, before others one that is not a number, else the largest."""
    return max(differences, key=lambda one: (not one.passed, one.largest != one.largest, one.largest))


def cell(differences: list) -> str:
    shown = worst(differences)
    return f"{shown.largest:.1e}" + ("" if shown.passed else " !") if shown.largest else "0"


def tolerances() -> str:
    from ..comparison import GRADIENT_TOLERANCE, TOLERANCES

    scaled = {column_of(quantity): f"{share:g}" for quantity, share in TOLERANCES.items()}
    listed = ", ".join(f"{name} {share}" for name, share in scaled.items())
    return f"{listed}, times the largest entry where that is above 1; gradients {GRADIENT_TOLERANCE:g} times it"


def failures(found) -> list[str]:
    """A line for what differs, in the order of the computation, and one for each error of the reference's."""
    by_column, errors = {}, {}
    for difference in found.differences:
        if not difference.passed:
            by_column.setdefault(column_of(difference.quantity), []).append(difference)
    for batch, error in found.errors.items():
        errors.setdefault(error, []).append(batch)
    batches = [*found.step_ms, *found.errors]
    lines = []
    for differences in by_column.values():
        names = ", ".join(dict.fromkeys(one.quantity.removeprefix("gradient of ") for one in differences))
        what = f"gradients of {names}" if differences[0].quantity.startswith("gradient") else names
        by, allowed = worst(differences).largest, worst(differences).allowed
        lines.append(
            f"differs: {what}: by {by:.2g}, allowed {allowed:.2g}, {on([d.batch for d in differences], batches)}"
        )
    return lines + [f"{error}, {on(its_batches, batches)}" for error, its_batches in errors.items()]


def on(some: list[str], batches: list[str]) -> str:
    some = list(dict.fromkeys(some))
    return "on every batch" if len(some) == len(batches) else f"on: {'; '.join(some)}"


def write(args: argparse.Namespace, sizes: dict, found) -> None:
    from ..files import write_json

    differences = []
    for one in found.differences:  # JSON has no number for what is not finite
        largest = one.largest if math.isfinite(one.largest) else None
        differences.append(dataclasses.asdict(one) | {"largest": largest, "passed": one.passed})
    step_ms = {batch: {"ours": ours, "reference": theirs, "ratio": theirs / ours}
               for batch, (ours, theirs) in found.step_ms.items()}  # fmt: skip
    about = {"reference": args.reference, "sizes": sizes, "passed": found.passed}
    write_json(args.json, about | {"differences": differences, "errors": found.errors, "step_ms": step_ms})


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

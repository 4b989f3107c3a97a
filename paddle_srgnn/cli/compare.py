"""Compare results and speed with another implementation of SR-GNN, with the same weights on the same batches.

Exit code 0: everything agrees within the tolerances. 1: something differs, or the other implementation fails.
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
        help="the other implementation, a class with the reference's interface (default: SRGNN); this RUNS the file",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, metavar="RUN",
        help="run or checkpoint whose weights and test samples to use (default: random weights and sessions)",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="dataset of the test samples (default: the run's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every difference as JSON")
    cli.add_machine(parser, device=False)
    return parser


def work(args: argparse.Namespace) -> int:
    from .. import runtime
    from ..errors import InputError

    cli.check_folders(args.json)
    if args.data and not args.checkpoint:
        raise InputError("--data applies only with --checkpoint RUN")
    if not Path(args.reference.partition(":")[0]).is_file():
        raise InputError(f"--reference {args.reference}: no such file")
    runtime.tune(args.threads)
    runtime.set_device("cpu")

    from .. import comparison

    sizes, weights, batches = given(args)
    print(f"running the code in {args.reference}", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results only
        found = comparison.compare(comparison.load_reference(args.reference), sizes, weights, batches)
    show(found)
    if args.json:
        write(args, sizes, found)
    return cli.DONE if found.passed else cli.FAILED


def given(args: argparse.Namespace):
    """The sizes, weights and batches to compare on."""
    from ..comparison import SIZES, of_run, random_batches, random_weights
    from ..run import Run

    if args.checkpoint:
        return of_run(Run(args.checkpoint), args.data)
    return SIZES, random_weights(SIZES), random_batches(SIZES["n_items"])


def show(found) -> None:
    """Print the largest differences on each batch, then what differs or fails, then whether all pass."""
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
    """The difference to show of several: NaN before other failures, else the largest."""
    return max(differences, key=lambda one: (not one.passed, one.largest != one.largest, one.largest))


def cell(differences: list) -> str:
    shown = worst(differences)
    return f"{shown.largest:.1e}" + ("" if shown.passed else " !") if shown.largest else "0"


def tolerances() -> str:
    from ..comparison import GRADIENT_TOLERANCE, TOLERANCES

    scaled = {column_of(quantity): f"{share:g}" for quantity, share in TOLERANCES.items()}
    listed = ", ".join(f"{name} {share}" for name, share in scaled.items())
    return f"{listed} of the largest entry or of 1 if larger; gradients {GRADIENT_TOLERANCE:g} of the largest"


def failures(found) -> list[str]:
    """A line for each quantity that differs, in the order of computation, and for each error of the reference."""
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
    for one in found.differences:  # JSON has no NaN and no infinity
        largest = one.largest if math.isfinite(one.largest) else None
        differences.append(dataclasses.asdict(one) | {"largest": largest, "passed": one.passed})
    step_ms = {batch: {"ours": ours, "reference": theirs, "ratio": theirs / ours}
               for batch, (ours, theirs) in found.step_ms.items()}  # fmt: skip
    about = {"reference": args.reference, "sizes": sizes, "passed": found.passed}
    write_json(args.json, about | {"differences": differences, "errors": found.errors, "step_ms": step_ms})


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

"""Compare results and speed with another implementation of SR-GNN, on the same weights and batches.

Its session vectors must also stay the same in other orders and batch sizes, and with other targets.

Exit code 0: all results agree within the tolerances. 1: a result differs, or the other implementation fails.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
from pathlib import Path

from .. import cli

NEIGHBOURS, TARGETS = "neighbours", "targets"  # columns


def parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("srgnn compare", description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--reference", required=True, metavar="FILE.py[:CLASS]",
        help="other implementation, a class with the reference's interface (default: SRGNN); this RUNS the file",
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
    from ..run import Run

    if args.checkpoint:
        sizes, weights, batches = comparison.of_run(Run(args.checkpoint), args.data)
    else:
        sizes = comparison.SIZES
        weights, batches = comparison.random_weights(sizes), comparison.random_batches(sizes["n_items"])
    print(f"running the code in {args.reference}", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results only
        found = comparison.compare(comparison.load_reference(args.reference), sizes, weights, batches)
    show(found)
    if args.json:
        write(args, sizes, found)
    return cli.DONE if found.passed else cli.FAILED


def show(found) -> None:
    """Print the largest differences on each batch, then the failures or that all pass."""
    from ..comparison import GRADIENT_TOLERANCE, ORDER_TOLERANCE, TOLERANCES
    from ..evaluation.results import format_table

    columns = list(dict.fromkeys(column_of(one.quantity) for one in found.differences))
    rows = []
    for batch, (ours, theirs) in found.step_ms.items():
        cells = []
        for column in columns:
            shown = worst([d for d in found.differences if (d.batch, column_of(d.quantity)) == (batch, column)])
            cells.append(f"{shown.largest:.1e}{'' if shown.passed else ' !'}" if shown.largest else "0")
        rows.append([batch, *cells, ours, theirs, f"{theirs / ours:.1f}x"])
    if rows:
        print(format_table(["largest difference", *columns, "our step, ms", "reference", "ratio"], rows), end="\n\n")
        scaled = {column_of(quantity): f"{share:g}" for quantity, share in TOLERANCES.items()}
        scaled["neighbours and targets"] = f"{ORDER_TOLERANCE:g}"
        listed = ", ".join(f"{name} {share}" for name, share in scaled.items())
        print(f"allowed: {listed} of the largest entry (at least 1); gradients {GRADIENT_TOLERANCE:g} of the largest")
    for line in failures(found):
        print(line, file=sys.stderr)
    if found.passed:
        print(f"all {len(found.differences)} comparisons pass")


def column_of(quantity: str) -> str:
    from ..comparison import ADAM_LOSSES, ALONE, OTHER_TARGETS

    if quantity.startswith(ALONE):
        return NEIGHBOURS
    short = dict.fromkeys(("alias_inputs", "items", "mask"), "integers")
    short |= {ADAM_LOSSES: "Adam", OTHER_TARGETS: TARGETS}
    return "gradients" if quantity.startswith("gradient") else short.get(quantity, quantity)


def worst(differences: list):
    """The difference to show: NaN before other failures, else the largest."""
    return max(differences, key=lambda one: (not one.passed, one.largest != one.largest, one.largest))


def failures(found) -> list[str]:
    """A line for each quantity that differs, in the order of computation, and for each error of the reference."""
    from ..comparison import ALONE

    by_column, batches_of = {}, {}  # the batches of each line
    for difference in found.differences:
        if not difference.passed:
            by_column.setdefault(column_of(difference.quantity), []).append(difference)
    for column, differences in by_column.items():
        names = ", ".join(dict.fromkeys(one.quantity.removeprefix("gradient of ") for one in differences))
        shown = {
            "gradients": f"differs: gradients of {names}",
            NEIGHBOURS: f"looks at its neighbours in the batch: user_emb {names.replace(f', {ALONE}', ', ')}",
            TARGETS: f"looks at the target: user_emb {names}",
        }
        most = worst(differences)
        line = f"{shown.get(column, f'differs: {names}')}: by {most.largest:.2g}, allowed {most.allowed:.2g}"
        batches_of[line] = list(dict.fromkeys(one.batch for one in differences))
    for batch, error in found.errors.items():
        batches_of.setdefault(error, []).append(batch)
    n_batches = len(found.step_ms) + len(found.errors)
    return [
        f"{line}, {'on every batch' if len(batches) == n_batches else 'on: ' + '; '.join(batches)}"
        for line, batches in batches_of.items()
    ]


def write(args: argparse.Namespace, sizes: dict, found) -> None:
    from ..files import write_json

    differences = []
    for one in found.differences:
        largest = one.largest if math.isfinite(one.largest) else None  # JSON has no NaN and no infinity
        differences.append(dataclasses.asdict(one) | {"largest": largest, "passed": one.passed})
    about = {"reference": args.reference, "sizes": sizes, "passed": found.passed, "differences": differences}
    step_ms = {name: {"ours": ours, "reference": ms, "ratio": ms / ours} for name, (ours, ms) in found.step_ms.items()}
    write_json(args.json, about | {"errors": found.errors, "step_ms": step_ms})


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

"""Convert a raw click log or the authors' pickles to a dataset, split and numbered as in the paper or the course."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from fractions import Fraction
from pathlib import Path

from .. import cli

# Options of each kind, besides --out, --name and --force.
PAPER = {"fraction", "test_days", "min_item_clicks", "to_pickle"}
TAKES = {
    "sample": {"to_pickle"},
    "diginetica": {"raw", *PAPER},
    "yoochoose": {"raw", *PAPER},
    "csv": {"raw", "columns", "sep", "protocol", *PAPER},
    "inter": {"raw", "columns", "protocol", *PAPER},
    "srgnn-pickle": {"raw", "to_pickle"},
}


def positive(kind: type, expected: str, largest: float = sys.float_info.max):
    """An argparse type: a finite positive number up to `largest`."""

    def number(text: str):
        with contextlib.suppress(ValueError, ZeroDivisionError):
            if 0 < (value := kind(text)) <= largest:
                return value
        raise argparse.ArgumentTypeError(f"{text} is not {expected}")

    return number


def columns(text: str) -> dict[str, str]:
    pairs = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    if len(pairs) < len(text.split(",")) or not pairs.keys() <= {"session", "item", "time"} or not all(pairs.values()):
        raise argparse.ArgumentTypeError(f"{text} is not of the form session=NAME,item=NAME,time=NAME")
    return pairs


def separator(text: str) -> str:
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character; write a tab as tab")
    return text


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn preprocess", description=__doc__)
    add = parser.add_argument
    add("kind", choices=list(TAKES), help="the embedded synthetic sample, or the format of --raw")
    add("--raw", type=Path, metavar="PATH", help="log (also .gz or .zip) or its folder; for srgnn-pickle a folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the dataset")
    add("--name", help="name of the dataset (default: the last part of --out)")
    part = positive(Fraction, "a fraction in (0, 1], such as 1/64", 1)
    add("--fraction", type=part, metavar="F", help="share of the most recent training samples to keep (default: 1)")
    add(
        "--columns", type=columns, metavar="ROLE=NAME,..",
        help="session=NAME,item=NAME,time=NAME for columns of a csv or inter with other names (default: session, item, "
        "time; inter: session_id or user_id, item_id, timestamp; course: user_id, item_id, timestamp)",
    )
    add("--sep", type=separator, metavar="C", help="separator of a csv, or tab (default: ,)")
    days = {"type": positive(float, "a positive number"), "metavar": "DAYS"}
    add("--test-days", **days, help="length of the test period in days (default: 7; yoochoose: 1)")
    add("--min-item-clicks", type=cli.positive_int, metavar="N", help="drop items with fewer clicks (default: 5)")
    add(
        "--protocol", choices=("sessions", "course"),
        help="for csv and inter: the paper's sessions, or the course's users, split 8:1:1 (default: sessions)",
    )  # fmt: skip
    add("--seed", type=int, metavar="N", help="seed of the course's split of users (default: 0)")
    add("--to-pickle", type=Path, metavar="DIR", help="also write the authors' pickles to this folder")
    add("--force", action="store_true", help="replace --out and --to-pickle if they exist")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the options and the output folders before any work."""
    from ..errors import InputError
    from ..protocols import PROTOCOLS

    takes, what = TAKES[args.kind], args.kind
    if args.protocol and "protocol" in takes:
        takes, what = takes - PAPER | set(PROTOCOLS[args.protocol].options), f"--protocol {args.protocol}"
    for option in ("raw", "columns", "sep", "protocol", "seed", *sorted(PAPER)):
        if getattr(args, option) is not None and option not in takes:
            raise InputError(f"--{option.replace('_', '-')} does not apply to {what}; leave it out")
    if args.seed is not None and args.seed < 0:
        raise InputError(f"--seed {args.seed}: must be at least 0")
    if "raw" in TAKES[args.kind] and args.raw is None:
        raise InputError(f"{args.kind} needs --raw PATH")
    if args.name is not None and (not args.name.strip() or "/" in args.name or "\\" in args.name):
        raise InputError(f"--name {args.name!r} is not valid in a file name; choose another")
    pickles, out = args.to_pickle and args.to_pickle.resolve(), args.out.resolve()
    if pickles and (out.is_relative_to(pickles) or pickles.is_relative_to(out)):
        raise InputError(f"one of --out {args.out} and --to-pickle {args.to_pickle} contains the other; separate them")
    cli.check_replaceable("--out", args.out, "meta.json", args.force)
    cli.check_replaceable("--to-pickle", args.to_pickle, "test.txt", args.force)


def build(args: argparse.Namespace):
    """Build the dataset."""
    name = args.name or args.out.resolve().name
    if args.kind == "sample":
        from ..datasets.synthetic import sample_dataset

        return dataclasses.replace(sample_dataset(), name=args.name or "sample")
    if args.kind == "srgnn-pickle":
        from ..datasets.pickles import import_pickles

        return import_pickles(args.raw, name)

    from ..datasets import clicks
    from ..datasets.download import SOURCES
    from ..datasets.protocol import build_dataset
    from ..protocols import PROTOCOLS

    raw, layout, protocol = args.raw, {}, args.protocol or "sessions"
    if args.kind in SOURCES and (raw / SOURCES[args.kind].file).is_file():
        raw = raw / SOURCES[args.kind].file
    if args.kind in ("csv", "inter"):
        layout["columns"] = PROTOCOLS[protocol].columns | (args.columns or {})
    if args.sep:
        layout["sep"] = args.sep
    log = getattr(clicks, f"read_{args.kind}")(raw, **layout)
    return build_dataset(
        log, name, f"{args.kind}: {raw.name}", protocol, seed=args.seed or 0,
        test_days=args.test_days or (1 if args.kind == "yoochoose" else 7),
        min_item_clicks=args.min_item_clicks or 5, fraction=args.fraction or 1,
    )  # fmt: skip


def summarise(dataset, args: argparse.Namespace) -> None:
    from ..protocols import protocol_of

    print(f"{dataset.name}: {dataset.n_items - 1:,} items, n_items {dataset.n_items} with the padding")
    for part, sessions in dataset.parts.items():
        print(f"  {part:<5}  {protocol_of(dataset).describe(sessions)}")
    if dropped := dataset.meta["parameters"].get("dropped_users"):
        print(f"  dropped users: {dropped:,} with fewer than 5 items (a training sample has 4 before its target)")
    if args.to_pickle:
        print(f"pickles in {args.to_pickle}")
    print(f"dataset in {args.out}; next: {cli.command('train')} --data {shlex.quote(str(args.out))}")


def work(args: argparse.Namespace) -> None:
    check(args)
    from ..datasets.pickles import export_pickles
    from ..datasets.sessions import write_dataset
    from ..files import atomic_folder

    dataset = build(args)
    with contextlib.ExitStack() as stack:  # the pickles' folder is renamed once the dataset is complete
        if args.to_pickle:
            export_pickles(dataset, stack.enter_context(atomic_folder(args.to_pickle, args.force)))
        write_dataset(dataset, args.out, args.force)
    summarise(dataset, args)


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

"""Turn a raw click log, or the authors' pickles, into a dataset, split and numbered as in the paper or the course."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
from fractions import Fraction
from pathlib import Path

from .. import cli

# What the options beside --out, --name and --force apply to.
PAPER = {"fraction", "test_days", "min_item_clicks", "to_pickle"}
TAKES = {
    "sample": {"to_pickle"},
    "diginetica": {"raw", *PAPER},
    "yoochoose": {"raw", *PAPER},
    "csv": {"raw", "columns", "sep", "protocol", *PAPER},
    "inter": {"raw", "columns", "protocol", *PAPER},
    "srgnn-pickle": {"raw", "to_pickle"},
}
KNOWN_FILES = {"diginetica": "train-item-views.csv", "yoochoose": "yoochoose-clicks.dat"}


def fraction(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a fraction in (0, 1], such as 1/64")
    return value


def positive(kind: type):
    def number(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a positive number")
        return value

    number.__name__ = f"positive {kind.__name__}"
    return number


def columns(text: str) -> dict[str, str]:
    pairs = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    if len(pairs) < len(text.split(",")) or not pairs.keys() <= {"session", "item", "time"} or not all(pairs.values()):
        raise argparse.ArgumentTypeError(f"{text} is not of the form session=NAME,item=NAME,time=NAME")
    return pairs


def separator(text: str) -> str:
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character (write a tab as tab)")
    return text


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn preprocess", description=__doc__)
    parser.add_argument("kind", choices=list(TAKES), help="the embedded synthetic sample, or the format of --raw")
    parser.add_argument(
        "--raw", type=Path, metavar="PATH", help="the log (also .gz or .zip) or its folder; for srgnn-pickle a folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the dataset")
    parser.add_argument("--name", help="name of the dataset (default: the last part of --out)")
    parser.add_argument(
        "--fraction", type=fraction, metavar="F", help="share of training samples to keep, the most recent (default: 1)"
    )
    parser.add_argument(
        "--columns", type=columns, metavar="ROLE=NAME,..",
        help="session=NAME,item=NAME,time=NAME for columns of a csv or inter with other names (default: session, item, "
        "time; inter: session_id or user_id, item_id, timestamp; course: user_id, item_id, timestamp)",
    )
    parser.add_argument("--sep", type=separator, metavar="C", help="separator of a csv, or tab (default: ,)")
    parser.add_argument(
        "--test-days", type=positive(float), metavar="DAYS", help="length of the test period (default: 7; yoochoose: 1)"
    )
    parser.add_argument(
        "--min-item-clicks", type=positive(int), metavar="N", help="drop items with fewer clicks (default: 5)"
    )
    parser.add_argument(
        "--protocol", choices=("sessions", "course"),
        help="for csv and inter: the paper's sessions, or the course's users, split 8:1:1 (default: sessions)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the course's split of users (default: 0)")
    parser.add_argument("--to-pickle", type=Path, metavar="DIR", help="also write the authors' pickles to this folder")
    parser.add_argument("--force", action="store_true", help="replace --out and --to-pickle if they exist")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not apply and output folders that exist, before any work."""
    from ..errors import InputError

    takes, what = TAKES[args.kind], args.kind
    if args.protocol == "course" and "protocol" in takes:
        takes, what = takes - PAPER | {"seed"}, "--protocol course"
    own = ("raw", "columns", "sep", "protocol", "seed")
    for option in (*own, *sorted(PAPER)):
        if getattr(args, option) is not None and option not in takes:
            raise InputError(f"--{option.replace('_', '-')} does not apply to {what}; leave it out")
    if args.seed is not None and args.seed < 0:
        raise InputError(f"--seed {args.seed}: must be at least 0")
    if "raw" in TAKES[args.kind] and args.raw is None:
        raise InputError(f"{args.kind} needs --raw PATH")
    if args.name is not None and (not args.name.strip() or "/" in args.name or "\\" in args.name):
        raise InputError(f"--name {args.name!r} cannot be part of a file name; choose another")
    pickles, out = args.to_pickle and args.to_pickle.resolve(), args.out.resolve()
    if pickles and (out.is_relative_to(pickles) or pickles.is_relative_to(out)):
        raise InputError(f"one of --out {args.out} and --to-pickle {args.to_pickle} contains the other; choose two")
    cli.check_replaceable("--out", args.out, "meta.json", args.force)
    cli.check_replaceable("--to-pickle", args.to_pickle, "test.txt", args.force)


def build(args: argparse.Namespace):
    """Make the dataset."""
    name = args.name or args.out.resolve().name
    if args.kind == "sample":
        from ..datasets.synthetic import sample_dataset

        dataset = sample_dataset()
        return dataclasses.replace(dataset, name=name) if args.name else dataset
    if args.kind == "srgnn-pickle":
        from ..datasets.pickles import import_pickles

        return import_pickles(args.raw, name)

    from ..datasets import clicks
    from ..datasets.course import CSV_COLUMNS
    from ..datasets.protocol import build_dataset

    raw = args.raw
    columns = (CSV_COLUMNS if args.protocol == "course" else {}) | (args.columns or {})
    if args.kind in KNOWN_FILES and (raw / KNOWN_FILES[args.kind]).is_file():
        raw = raw / KNOWN_FILES[args.kind]
    if args.kind == "diginetica":
        log = clicks.read_diginetica(raw)
    elif args.kind == "yoochoose":
        log = clicks.read_yoochoose(raw)
    elif args.kind == "inter":
        log = clicks.read_inter(raw, columns)
    else:
        log = clicks.read_csv(raw, columns, args.sep or ",")
    return build_dataset(
        log, name, f"{args.kind}: {raw.name}", args.protocol or "sessions", seed=args.seed or 0,
        test_days=args.test_days or (1 if args.kind == "yoochoose" else 7),
        min_item_clicks=args.min_item_clicks or 5, fraction=args.fraction or 1,
    )  # fmt: skip


def summarise(dataset, args: argparse.Namespace) -> None:
    print(f"{dataset.name}: {dataset.n_items - 1:,} items, n_items {dataset.n_items} with the padding")
    for part, sessions in dataset.parts.items():
        if dataset.protocol == "course":
            print(f"  {part:<5} {len(sessions):>11,} users {len(sessions.items):>15,} items")
        else:
            print(f"  {part:<5} {len(sessions):>11,} sessions {sessions.n_samples:>12,} samples")
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
    with contextlib.ExitStack() as stack:  # the pickles' folder gets its name once the dataset is complete
        if args.to_pickle:
            export_pickles(dataset, stack.enter_context(atomic_folder(args.to_pickle, args.force)))
        write_dataset(dataset, args.out, args.force)
    summarise(dataset, args)


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

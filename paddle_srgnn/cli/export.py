"""Export a run for serving, compared with its checkpoint: Paddle Inference or ONNX models, or item vectors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import cli


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run, for its reported checkpoint, or a checkpoint")
    parser.add_argument(
        "--format", choices=("paddle", "onnx", "vectors"), required=True,
        help="paddle, onnx: models that read item numbers; vectors: of the items, for an index by inner product",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder for the export")
    parser.add_argument("-k", type=cli.positive_int, metavar="K", help="items that the ranker lists (default: 20)")
    parser.add_argument("--force", action="store_true", help="replace an earlier export in --out")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself, and an output folder that is in use, before any work is done."""
    from ..errors import InputError

    if args.format == "vectors" and args.k is not None:
        raise InputError("-k does not apply to vectors: an index is asked for as many as are wanted; leave it out")
    if not args.out.exists():
        return
    if not args.force:
        raise InputError(f"{args.out} exists already: choose another folder, or pass --force to replace it")
    if not (args.out / "manifest.json").is_file() and (args.out.is_file() or any(args.out.iterdir())):
        raise InputError(f"{args.out} holds no manifest.json: --force replaces only what this tool wrote")


def work(args: argparse.Namespace) -> None:
    check(args)
    from .. import runtime

    os.environ.setdefault("GLOG_minloglevel", "2")  # a warning of Paddle's about its own export
    runtime.tune()
    runtime.set_device("cpu")  # where the export is checked; its models run on either
    from ..serving.export import export_run

    summarise(export_run(args.run, args.out, args.format, args.k or 20, args.force), args.out)


def summarise(manifest: dict, out: Path) -> None:
    verified = manifest["verified"]
    print(f"{manifest['format']} export of {manifest['checkpoint']} in {out}")
    for model in manifest.get("models", {}).values():
        arrays = " -> ".join(", ".join(map(shape_of, model[side])) for side in ("inputs", "outputs"))
        print(f"  {' + '.join(model['files'])}: {arrays}")
    if "items" in manifest:
        items = manifest["items"]
        print(f"  {items['file']}: {items['dtype']} {items['shape']}; its row r is item r+1, line r+1 of items.csv")
        print("  the best items of a session are those with the largest inner product with its vector,\n"
              "  which SRGNN.encode gives, or the encoder of --format paddle or onnx")  # fmt: skip
    low, high = verified["clicks"]
    print(f"compared with the checkpoint on {verified['sessions']:,} {verified['on']}, of {low} to {high} clicks")
    for what, found in verified["differences"].items():
        print(f"  {what.replace('_', ' ')} differ by up to {found['largest']:.1e}, "
              f"{found['allowed']:.1e} is allowed; the largest is {found['largest_value']:.3g}")  # fmt: skip
    same, all_lists = verified["identical_lists"], verified["sessions"]
    rest = "" if same == all_lists else ", the others differ only among items whose scores are that close"
    print(f"  {same:,} of {all_lists:,} lists of {verified['k']} are identical{rest}")
    if "latency" in manifest:
        times = manifest["latency"]
        print(f"one session at a time, one thread, {times['sessions']} sessions: "
              f"median {times['median_ms']} ms, 99th percentile {times['p99_ms']} ms")  # fmt: skip


def shape_of(array: dict) -> str:
    return f"{array['name']} {array['dtype']} [{', '.join(map(str, array['shape']))}]"


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

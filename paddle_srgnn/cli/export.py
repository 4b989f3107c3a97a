"""Export a run as Paddle Inference models, ONNX models or item vectors, and compare them with its checkpoint."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from .. import cli
from ..errors import InputError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("srgnn export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or one of its checkpoints")
    parser.add_argument(
        "--format", choices=("paddle", "onnx", "vectors"), required=True,
        help="paddle, onnx: models from item numbers to the best items; vectors: item vectors for a vector index",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("-k", type=cli.positive_int, metavar="K", help="length of the models' lists (default: 20)")
    parser.add_argument("--unfinished", action="store_true", help="export a run whose training is unfinished, too")
    parser.add_argument("--force", action="store_true", help="replace an earlier export in --out")
    return parser


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


def work(args: argparse.Namespace) -> None:
    from ..runtime import set_device, tune

    if args.format == "vectors" and args.k is not None:
        raise InputError("-k does not apply to vectors, as an index can list any number; leave it out")
    cli.check_replaceable("--out", args.out, "manifest.json", args.force)
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle warns about its own exports
    tune()
    set_device("cpu")  # for the comparison; the models run on CPU and GPU
    from ..serving.export import export_run

    try:
        manifest = export_run(args.run, args.out, args.format, args.k or 20, args.force, args.unfinished)
    except InputError as error:
        hint = " (--unfinished)" if "allow an unfinished run" in str(error) else ""
        raise InputError(f"{error}{hint}") from None
    summarise(manifest, args.out)


def summarise(manifest: dict, out: Path) -> None:
    verified = manifest["verified"]
    if manifest["unfinished"]:
        logging.getLogger("paddle_srgnn").warning("%s: %s", manifest["checkpoint"], manifest["unfinished"])
    print(f"{manifest['format']} export of {manifest['checkpoint']} in {out}")
    for model in manifest.get("models", {}).values():
        arrays = " -> ".join(", ".join(map(shape_of, model[side])) for side in ("inputs", "outputs"))
        print(f"  {' + '.join(model['files'])}: {arrays}")
    if items := manifest.get("items"):
        shape = f"{items['dtype']} {items['shape']}"
        print(f"  {items['file']}: {shape}; row r, from 0, is the item with index r+1 in items.csv")
        print(f"  scores are the {manifest['similarity']} of these rows and a session's vector,\n"
              "  which SRGNN.encode_sessions gives, or the encoder of --format paddle or onnx")  # fmt: skip
    low, high = verified["clicks"]
    print(f"compared with the checkpoint on {verified['sessions']:,} {verified['on']}, of {low} to {high} clicks")
    for what, found in verified["differences"].items():
        print(f"  {what.replace('_', ' ')} differ by up to {found['largest']:.1e}, "
              f"{found['allowed']:.1e} is allowed; the largest is {found['largest_value']:.3g}")  # fmt: skip
    same, all_lists = verified["identical_lists"], verified["sessions"]
    rest = "" if same == all_lists else "; the others differ only in items with nearly equal scores"
    print(f"  {same:,} of {all_lists:,} lists of {verified['k']} are identical{rest}")
    if times := manifest.get("latency"):
        print(f"one session at a time, one thread, {times['sessions']} sessions: "
              f"median {times['median_ms']} ms, 99th percentile {times['p99_ms']} ms")  # fmt: skip


def shape_of(array: dict) -> str:
    return f"{array['name']} {array['dtype']} [{', '.join(map(str, array['shape']))}]"

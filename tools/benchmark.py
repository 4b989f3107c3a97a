"""Measure speed and memory. Contenders run in processes of their own and take turns; figures are over all rounds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_srgnn import cli


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=cli.positive_int, default=5, metavar="N", help="rounds (default: 5)")
    common.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", default="sample", help="folder of a dataset, or sample (default: sample)")
    against = argparse.ArgumentParser(add_help=False)
    against.add_argument("--reference", metavar="FILE.py[:CLASS]", help="also measure this class; runs the file")
    length = argparse.ArgumentParser(add_help=False)
    length.add_argument(
        "--length", type=cli.positive_int, default=20, metavar="N",
        help="clicks to which the other implementations pad a session (default: 20)",
    )  # fmt: skip

    parser = argparse.ArgumentParser("benchmark.py", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("graph", parents=[common, against], help="building the graphs of a batch")
    train = what.add_parser("train", parents=[common, data, against, length], help="training steps end to end")
    train.add_argument("--batch", type=cli.positive_int, default=512, metavar="N", help="batch size (default: 512)")
    what.add_parser("evaluate", parents=[common, data, against, length], help="a whole ranking pass")
    scale = what.add_parser("scale", parents=[common], help="growth with catalogue, batch, session length and width")
    scale.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the times as a chart")
    what.add_parser("startup", parents=[common], help="--help of each tool, and the import")
    return parser


def work(args: argparse.Namespace) -> None:
    from paddle_srgnn.errors import InputError
    from paddle_srgnn.files import write_json

    cli.check_folders(args.json, getattr(args, "plot", None))
    if getattr(args, "reference", None) and not Path(args.reference.partition(":")[0]).is_file():
        raise InputError(f"--reference {args.reference}: no such file")
    if getattr(args, "data", "sample") != "sample":
        from paddle_srgnn.datasets.sessions import open_dataset

        open_dataset(args.data)
    run = {"graph": graph, "train": train, "evaluate": evaluate, "scale": scale, "startup": startup}[args.what]
    figures = run(args)
    if args.json:
        write_json(args.json, {"benchmark": args.what, "rounds": args.rounds, "figures": figures})


def measured(listed: list[tuple], rounds: int) -> dict[str, dict]:
    """Each contender's median, least and largest milliseconds, and its peak memory in MB."""
    from benchmarks.contender import measure, summary

    done = measure(listed, rounds, lambda line: print(line, file=sys.stderr))
    return {
        one.name: {key: summary(values) for key, values in one.figures.items()} | {"peak MB": one.memory}
        for one in done
    }


def show(header: list[str], rows: list[list]) -> None:
    from paddle_srgnn.evaluation.results import format_table

    print(format_table(header, rows))


def cells(figure: dict[str, float]) -> list[float]:
    return [figure["median"], figure["min"], figure["max"]]


def graph(args: argparse.Namespace) -> dict:
    from benchmarks.graph import SIZES, contenders

    figures = measured(contenders(args.reference), args.rounds)
    base = figures.get("reference, as installed")
    rows = []
    for size in (f"{b} x {length}" for b, length in SIZES):
        for name, found in figures.items():
            ratio = f"{base[size]['median'] / found[size]['median']:.1f}" if base else ""
            rows.append([f"{size}  {name}", *cells(found[size]), ratio])
    show(["batch x length, ms", "median", "min", "max", "x"], rows)
    return figures


def train(args: argparse.Namespace) -> dict:
    from benchmarks.train import contenders

    figures = measured(contenders(args.data, args.reference, args.batch, args.length), args.rounds)
    ours = figures["ours"]["step"]["median"]
    rows = [
        [name, *cells(found["step"]), round(1e3 * args.batch / found["step"]["median"]),
         found["step"]["median"] / ours, round(found["peak MB"])]
        for name, found in figures.items()
    ]  # fmt: skip
    show(["a step, ms", "median", "min", "max", "samples/s", "x ours", "peak MB"], rows)
    beside = figures["recipe beside the floor"]
    total = beside["step"]["median"]
    parts = [key for key in beside if key not in ("step", "floor", "peak MB")]
    print(f"\nour step over the floor of three products: {total / beside['floor']['median']:.2f}\n")
    show(["part, ms", "median", "min", "max"], [[part, *cells(beside[part])] for part in [*parts, "step", "floor"]])
    return figures


def evaluate(args: argparse.Namespace) -> dict:
    from benchmarks.evaluate import contenders

    from paddle_srgnn.datasets.load import load_dataset

    figures = measured(contenders(args.data, args.reference, args.length), args.rounds)
    samples, ours = load_dataset(args.data).test.n_samples, figures["ours"]["pass"]["median"]
    rows = [
        [name, *cells(found["pass"]), round(1e3 * samples / found["pass"]["median"]),
         found["pass"]["median"] / ours, round(found["peak MB"])]
        for name, found in figures.items()
    ]  # fmt: skip
    show(["a pass, ms", "median", "min", "max", "samples/s", "x ours", "peak MB"], rows)
    return figures


def scale(args: argparse.Namespace) -> dict:
    from benchmarks.scale import contenders, exponent, outlier_contenders, plot

    points: dict[str, list[dict]] = {}
    for grows, value, contender in contenders():  # one at a time: a million items fill the memory
        (found,) = measured([contender], 1).values()
        points.setdefault(grows, []).append({"value": value} | found)
    rows = []
    for grows, found in points.items():
        for row in found:
            rows.append([f"{grows} {row['value']}", row["step"]["median"], row["batch + encoder"]["median"],
                         round(row["peak MB"])])  # fmt: skip
    show(["ms", "step", "batch + encoder", "peak MB"], rows)
    exponents = {}
    for grows, found in points.items():
        values = [row["value"] for row in found]
        exponents[grows] = {
            key: exponent(values, [row[key]["median"] for row in found]) for key in ("step", "batch + encoder")
        }
    print()
    show(["exponent in", "step", "batch + encoder"], [[grows, *found.values()] for grows, found in exponents.items()])
    outlier = measured(outlier_contenders(), args.rounds)
    few, one = (figures["step"]["median"] for figures in outlier.values())
    print(f"\none session of 70 clicks among 511 short ones: {100 * (one / few - 1):+.1f} % on the step")
    if args.plot:
        plot(points, args.plot)
        print(f"plot: {args.plot}")
    return {"points": points, "exponents": exponents, "outlier": outlier}


def startup(args: argparse.Namespace) -> dict:
    from benchmarks.contender import summary
    from benchmarks.startup import measure

    figures = {name: summary(ms) for name, ms in measure(Path(__file__).parent, args.rounds).items()}
    show(["ms", "median", "min", "max"], [[name, *cells(figure)] for name, figure in figures.items()])
    return figures


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())

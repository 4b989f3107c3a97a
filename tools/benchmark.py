"""Measure speed and memory. Contenders run in separate processes and take turns. Figures cover all rounds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import contender

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
    pads = "clicks to which other implementations pad a session (default: 20)"
    length.add_argument("--length", type=cli.positive_int, default=20, metavar="N", help=pads)

    parser = argparse.ArgumentParser("benchmark.py", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("graph", parents=[common, against], help="build the graphs of a batch")
    train = what.add_parser("train", parents=[common, data, against, length], help="run training steps end to end")
    train.add_argument("--batch", type=cli.positive_int, default=512, metavar="N", help="batch size (default: 512)")
    what.add_parser("evaluate", parents=[common, data, against, length], help="rank all test samples")
    scale = what.add_parser("scale", parents=[common], help="vary catalogue, batch, session length and dimension")
    scale.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the times as a chart")
    what.add_parser("startup", parents=[common], help="run --help of each tool, and import the package")
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
    """The median, minimum and maximum milliseconds of each contender, and its peak memory in MB."""
    done = contender.measure(listed, rounds, lambda line: print(line, file=sys.stderr))
    return {
        one.name: {key: contender.summary(values) for key, values in one.figures.items()} | {"peak MB": one.memory}
        for one in done
    }


def show(header: list[str], rows: list[list]) -> None:
    from paddle_srgnn.evaluation.results import format_table

    print(format_table(header, rows))


def cells(figure: dict[str, float]) -> list[float]:
    return [figure["median"], figure["min"], figure["max"]]


def show_against_ours(figures: dict[str, dict], key: str, samples: int) -> None:
    """Print a row per contender; `samples` is the number of samples in one step or pass."""
    rows = []
    for name, found in figures.items():
        median = found[key]["median"]
        ratio = median / figures["ours"][key]["median"]
        rows.append([name, *cells(found[key]), round(1e3 * samples / median), ratio, round(found["peak MB"])])
    show([f"a {key}, ms", "median", "min", "max", "samples/s", "x ours", "peak MB"], rows)


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
    from benchmarks.train import FLOOR, contenders

    figures = measured(contenders(args.data, args.reference, args.batch, args.length), args.rounds)
    show_against_ours(figures, "step", args.batch)
    parts = {key: figure for key, figure in figures[FLOOR].items() if key != "peak MB"}
    floor, total = parts.pop("floor"), parts.pop("step")
    print(f"\nour step over the floor of three products: {total['median'] / floor['median']:.2f}\n")
    parts |= {"step": total, "floor": floor}
    show(["part, ms", "median", "min", "max"], [[part, *cells(figure)] for part, figure in parts.items()])
    return figures


def evaluate(args: argparse.Namespace) -> dict:
    from benchmarks.evaluate import contenders

    from paddle_srgnn.datasets.load import load_dataset

    figures = measured(contenders(args.data, args.reference, args.length), args.rounds)
    show_against_ours(figures, "pass", load_dataset(args.data).test.n_samples)
    return figures


def scale(args: argparse.Namespace) -> dict:
    from benchmarks.scale import TIMES, contenders, exponent, outlier_contenders, plot

    points: dict[str, list[dict]] = {}
    for name, value, point in contenders():  # one at a time, because a million items fill the memory
        (found,) = measured([point], 1).values()
        points.setdefault(name, []).append({"value": value} | found)
    rows, exponents = [], {}
    for name, found in points.items():
        medians = {key: [row[key]["median"] for row in found] for key in TIMES}
        values, memory = [row["value"] for row in found], [round(row["peak MB"]) for row in found]
        rows += zip([f"{name} {value}" for value in values], *medians.values(), memory, strict=True)
        exponents[name] = {key: exponent(values, times) for key, times in medians.items()}
    show(["ms", *TIMES, "peak MB"], rows)
    print()
    show(["exponent in", *TIMES], [[name, *found.values()] for name, found in exponents.items()])
    outlier = measured(outlier_contenders(), args.rounds)
    few, one = (figures["step"]["median"] for figures in outlier.values())
    print(f"\none session of 70 clicks among 511 short ones: {100 * (one / few - 1):+.1f} % on the step")
    if args.plot:
        plot(points, args.plot)
        print(f"plot: {args.plot}")
    return {"points": points, "exponents": exponents, "outlier": outlier}


def startup(args: argparse.Namespace) -> dict:
    from benchmarks.startup import measure

    figures = {name: contender.summary(ms) for name, ms in measure(Path(__file__).parent, args.rounds).items()}
    show(["ms", "median", "min", "max"], [[name, *cells(figure)] for name, figure in figures.items()])
    return figures


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())

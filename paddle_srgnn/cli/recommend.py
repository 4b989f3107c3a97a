"""Recommend the next items of sessions: reads sessions of raw item ids and prints ranked raw item ids.

The input is JSON lines {"session": any, "items": [raw ids, oldest first]}, or CSV with a header and the columns
session and item, each session in consecutive rows in click order; the first line decides which. Sessions are answered
in order, as soon as they arrive. Unknown items are ignored and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from .. import cli

AT_ONCE = 512  # sessions answered, and written, at a time
RECALL_SESSIONS = 1000  # the first ones, on which an approximate index is compared with exact search


def parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("srgnn recommend", description=__doc__, formatter_class=formatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or one of its checkpoints")
    parser.add_argument("--sessions", required=True, metavar="FILE", help="the sessions; - for standard input")
    parser.add_argument("-k", type=cli.positive_int, default=20, help="items for each session (default: 20)")
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="output format (default: jsonl)")
    parser.add_argument("--titles", type=Path, metavar="FILE", help=f"add {cli.TITLES}")
    parser.add_argument("--exclude-seen", action="store_true", help="leave out the items of the session itself")
    parser.add_argument(
        "--index", choices=("exact", "hnsw"), default="exact",
        help="hnsw: approximate search by faiss, with its recall measured on the first sessions (default: exact)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="treat a session without a known item as a bad line")
    parser.add_argument("--skip-bad", action="store_true", help="skip and count bad lines")
    cli.add_machine(parser)
    return parser


class Report:
    """The summary printed at the end."""

    def __init__(self):
        self.sessions = self.clicks = self.unknown = self.fallbacks = self.bad = 0
        self.seconds = 0.0  # of work, excluding waiting for input
        self.first_bad = ""
        self.compared = self.hits = self.total = 0  # approximate search against exact

    def add_bad(self, message: str) -> None:
        self.first_bad = self.first_bad or message
        self.bad += 1

    def add(self, requests: list, results: list, seconds: float) -> None:
        self.sessions += len(results)
        self.clicks += sum(len(request.items) for request in requests)
        self.unknown += sum(result.unknown for result in results)
        self.fallbacks += sum(result.fallback is not None for result in results)
        self.seconds += seconds

    def compare(self, recommender, requests: list, args: argparse.Namespace) -> None:
        hits, total = recommender.recall([request.items for request in requests], args.k, args.exclude_seen)
        self.compared, self.hits, self.total = self.compared + len(requests), self.hits + hits, self.total + total

    def lines(self, args: argparse.Namespace):
        rate = self.sessions / self.seconds if self.seconds else 0
        unknown = 100 * self.unknown / max(1, self.clicks)
        yield (
            f"{self.sessions:,} sessions, {rate:,.0f} a second; {unknown:.1f} % of {self.clicks:,} clicks on unknown "
            f"items; {self.fallbacks:,} sessions without a known item got popular items"
        )
        if self.bad:
            yield f"{self.bad:,} bad lines skipped, the first: {self.first_bad}"
        if self.total:
            share = 100 * self.hits / self.total
            yield f"{args.index} found {share:.2f} % of the exact top {args.k} of the first {self.compared:,} sessions"


def work(args: argparse.Namespace) -> None:
    from .. import runtime
    from ..datasets.titles import read_titles
    from ..errors import InputError

    if sys.stdout is None:
        raise InputError("standard output is closed; expected a file or a pipe for the recommendations")
    titles = read_titles(args.titles) if args.titles else None
    with contextlib.ExitStack() as stack:
        if args.sessions == "-":
            if sys.stdin is None:
                raise InputError("--sessions -: standard input is closed")
            stream, source = sys.stdin.buffer, "standard input"
        else:
            try:
                stream, source = stack.enter_context(open(args.sessions, "rb")), args.sessions
            except OSError as error:
                raise InputError(f"--sessions {args.sessions}: {error.strerror}") from None
        runtime.tune(args.threads)
        runtime.set_device(args.device)

        from ..serving.recommender import Recommender

        report = answer(Recommender.load(args.run, args.index), stream, source, args, titles)
    for line in report.lines(args):
        print(line, file=sys.stderr)


def answer(recommender, stream, source: str, args: argparse.Namespace, titles=None) -> Report:
    """Write the recommendations for a stream as it arrives."""
    from ..errors import InputError
    from ..serving.streams import formatted, header, read_sessions

    report = Report()
    on_bad = report.add_bad if args.skip_bad else None
    write(header(args.format, titles))
    for arrived in read_sessions(stream, source, on_bad=on_bad):
        for first in range(0, len(arrived), AT_ONCE):
            requests = arrived[first : first + AT_ONCE]
            start = time.perf_counter()
            items = [request.items for request in requests]
            results = recommender.recommend_many(items, args.k, exclude_seen=args.exclude_seen)
            seconds = time.perf_counter() - start
            refused = None
            if args.strict:
                requests, results, refused = known_only(requests, results, source, on_bad)
            write(formatted(requests, results, args.format, titles))
            if refused:
                raise InputError(refused)
            report.add(requests, results, seconds)
            if args.index != "exact" and report.compared < RECALL_SESSIONS:
                report.compare(recommender, requests[: RECALL_SESSIONS - report.compared], args)
    return report


def known_only(requests: list, results: list, source: str, on_bad) -> tuple[list, list, str | None]:
    """The sessions with a known item; without `on_bad` only those before the first bad one, and its message."""
    kept = [], []
    for request, result in zip(requests, results, strict=True):
        if result.fallback is None:
            kept[0].append(request)
            kept[1].append(result)
            continue
        message = f"{source}, line {request.line}: none of the session's {len(request.items)} items is known to the run"
        if on_bad is None:
            return *kept, message
        on_bad(message)
    return *kept, None


def write(text: str) -> None:
    sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
    sys.stdout.buffer.flush()


def main(argv=None) -> int:
    return cli.run(parser(), work, argv)

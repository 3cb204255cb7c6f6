"""How fast, and where the time goes: tables on the screen, and with curves and figures in runs/bench/report.html.

    python tests/benchmarks/bench.py                         everything, about 30 minutes on two cores
    python tests/benchmarks/bench.py --only rates,profile    some of it
    python tests/benchmarks/bench.py --quick                 everything with a step or two of it, to see that it runs

Frames are real ones, captured into runs/bench/frames the first time. Quote ratios within one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

import driver_cost
import learning
import many_runs
import operators
import overheads
import replay
import throughput
import torch
import tracking_cost
from page import Section, write_page
from setups import OUTPUT, Size, features, sizes

from vaegan_core.hardware import cpu_has_bfloat16, cpu_name

PARTS = ("rates", "learning", "profile", "overheads", "replay", "driver", "tracking", "runs")
START = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - START:4.0f} s] {text}", file=sys.stderr, flush=True)


def measure(parts: list[str], chosen: list[Size], demo: Size, threads: int, quick: bool) -> Iterator[Section]:
    if "rates" in parts:
        for size in chosen:
            ours, theirs = throughput.measure(size, threads, say)
            yield ours
            if theirs:
                yield theirs
            else:
                say("pythae is not installed here; `make bench` installs it in an environment of its own")
    if "profile" in parts:
        say("profile")
        yield operators.measure(demo, threads, 1 if quick else 10)
    if "overheads" in parts:
        say("overheads")
        yield overheads.measure(demo, threads, *((2, 1) if quick else (7, 5)))
    if "learning" in parts:
        yield learning.measure(demo, threads, 2 if quick else learning.STEPS, say)
    if "replay" in parts:
        yield from replay.measure(*(({4: 4}, 2) if quick else (replay.SETUPS, replay.SEEDS)), threads, say)
    if "driver" in parts:
        yield driver_cost.measure((10, 20) if quick else driver_cost.MARKS, say)
    if "tracking" in parts:
        yield tracking_cost.measure(5 if quick else tracking_cost.RESULTS, say)
    if "runs" in parts:
        yield many_runs.measure(20 if quick else 2000, say)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--sizes", default="demo,seed", help="comma-separated, for the rates")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    known = sizes(torch.cuda.is_available())
    parts, chosen = arguments.only.split(","), arguments.sizes.split(",")
    for given, allowed in ((parts, PARTS), (chosen, known)):
        if unknown := set(given) - set(allowed):
            parser.error(f"must be of {', '.join(allowed)}, got {', '.join(sorted(unknown))}")
    if arguments.quick:
        known = {name: size.quick() for name, size in known.items()}

    if set(parts) - {"replay", "driver", "tracking", "runs"}:
        say("frames and their features")
        features()
    machine = (
        f"{throughput.device(arguments.threads)}; {cpu_name()}, bfloat16 in hardware: {cpu_has_bfloat16()}; "
        f"torch {torch.__version__}; {time.strftime('%Y-%m-%d')}"
    )
    print(f"{machine}\n")
    sections: list[Section] = []
    for section in measure(parts, [known[name] for name in chosen], known["demo"], arguments.threads, arguments.quick):
        print(section.markdown(), flush=True)
        sections.append(section)
        write_page(OUTPUT / "report.html", machine, sections)
    say(f"written: {OUTPUT / 'report.html'}")


if __name__ == "__main__":
    main()

"""What a report of thousands of trials costs: seconds, memory, requests, and megabytes of its page.

    python tests/benchmarks/report_cost.py                          # 2,000 trials
    python tests/benchmarks/report_cost.py --trials 10000 --frame 121x65
    python tests/benchmarks/report_cost.py --picture NAME           # the page's picture in search/sweeps/report.png

The store is planted as rows of SQLite with pictures as files, so that planting takes seconds; it stays in
runs/bench/reported.
"""

from __future__ import annotations

import argparse
import io
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, artifacts
from PIL import Image
from setups import OUTPUT

sys.path.append(str(Path(__file__).parents[1] / "support"))
from browsers import open_browser
from planted_store import Plant, plant

from search.paths import tracking_uri
from search.report.page import write_page
from search.report.reported import read_reported
from search.tracking.client import open_client

DIRECTORY = OUTPUT / "reported"
WIDTH = 1200
"""Pixels of the picture."""
PICTURE = Path(__file__).parents[2] / "search" / "sweeps" / "report.png"
ARTIFACTS = ("list_artifacts", "download_artifacts")
REQUESTS = ("search_experiments", "search_runs", "get_run", "get_metric_history", *ARTIFACTS)
asked: Counter[str] = Counter()
"""Requests by name."""


class Counted(MlflowClient):
    """A client that counts what it asks the store."""

    def __getattribute__(self, name: str) -> Any:
        if name in REQUESTS:
            asked[name] += 1
        return super().__getattribute__(name)


def count_artifacts() -> None:
    """Has artifacts counted that are read without a client."""
    for name in ARTIFACTS:
        setattr(artifacts, name, partial(_counted, name, getattr(artifacts, name)))


def _counted(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    asked[name] += 1
    return call(*args, **kwargs)


def measure(trials: int, frame: tuple[int, int]) -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    uri = f"sqlite:///{DIRECTORY.resolve()}/mlflow.db"
    begun = time.perf_counter()
    planting = get_context("spawn").Process(target=plant, args=(uri, Plant(trials=trials, frame=frame)))
    planting.start()  # in a process of its own, so that the memory is the report's
    planting.join()
    print(f"planted {trials:,} trials in {time.perf_counter() - begun:.0f} s")
    open_client(uri)  # quiet downloads, short timeouts
    count_artifacts()
    client, page = Counted(uri), DIRECTORY / "report.html"
    cpu = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    reported = read_reported(client, "planted")
    read = time.perf_counter() - begun
    write_page(client, [reported], page)
    total = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cores = time.process_time() - cpu
    print(f"report: {total:.1f} s, {read:.1f} s of them for reading and findings; {cores:.1f} s of CPU")
    print(f"page: {page.stat().st_size / 1e6:.1f} MB at {page}")
    print(f"memory: {after / 1000:.0f} MB at most, {before / 1000:.0f} MB before the report")
    print("requests:", ", ".join(f"{count} {name}" for name, count in asked.most_common()))


def picture(name: str) -> None:
    """The front of a sweep's report with the pointer on its best trial, and its pictures in the other theme."""
    client = open_client(tracking_uri())
    page = OUTPUT / "picture" / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(client, [read_reported(client, name)], page)
    with open_browser() as browser:
        light, dark = _section(browser, page, "front", "light"), _section(browser, page, "pictures", "dark")
    whole = Image.new("RGB", (WIDTH, light.height + dark.height))
    whole.paste(light, (0, 0))
    whole.paste(dark, (0, light.height))
    whole.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


def _section(browser: Any, page: Path, part: str, theme: str) -> Image.Image:
    view = browser.new_page(viewport={"width": WIDTH, "height": 1200}, color_scheme=theme)
    view.goto(page.resolve().as_uri())
    view.locator(f"#{part}").scroll_into_view_if_needed()
    if part == "front":
        plot = view.locator("#front-plot canvas.over").bounding_box()
        x, y = view.evaluate("front.points.find(([, , index]) => index === 0)")[:2]
        view.mouse.move(plot["x"] + x, plot["y"] + y)
    box = view.locator(f"#{part}").bounding_box()
    clip = {"x": 0, "y": box["y"] + 4, "width": WIDTH, "height": box["height"] + 12}
    return Image.open(io.BytesIO(view.screenshot(clip=clip)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--frame", default="48x27", help="width and height of a frame")
    parser.add_argument("--picture", metavar="NAME", help="take the README's picture of this sweep's report instead")
    given = parser.parse_args()
    if given.picture:
        picture(given.picture)
        return
    width, _, height = given.frame.partition("x")
    measure(given.trials, (int(width), int(height)))


if __name__ == "__main__":
    main()

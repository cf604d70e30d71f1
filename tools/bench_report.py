"""A report page: time to write it, its size, and how soon it is drawn; a small step beside large ones.

    python tools/bench_report.py [--sizes 500,5000,20000]

Steps are on four devices, placed by m-ETF. Columns: the whole command, which imports, reads graph and plan, and simulates;
of that, what writing the page takes (as ``plan.report``, Bokeh's import included); its size; and what a headless
chromium (Debian's, by playwright) takes from asking for the file to the last chart, the median of five.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from baechi.ir.json import write_graph
from baechi.models.graphs import dag

REPEATS = 5
BAECHI = (sys.executable, "-m", "baechi")


def command(*arguments: object) -> float:
    """Seconds of a command of ours."""
    start = time.perf_counter()
    subprocess.run([*BAECHI, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def page_seconds(plan: Path, page: Path) -> float:
    """Seconds of writing the page alone, in a process of its own, which has read the plan."""
    ran = subprocess.run([sys.executable, __file__, "--page", plan, page], check=True, capture_output=True, text=True)
    return float(ran.stdout)


def write_page(plan: str, page: str) -> None:
    """Be that process."""
    from baechi.cli.saved import viewed
    from baechi.report import write_report

    step = viewed(plan)
    start = time.perf_counter()
    write_report([step], page)
    print(time.perf_counter() - start)


def drawn(browser: Any, path: Path) -> float:
    """Seconds until the page says that all is drawn."""
    seconds = []
    for _ in range(REPEATS):
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        seconds.append(int(page.evaluate("document.documentElement.dataset.drawn")) / 1e3)
        page.close()
    return statistics.median(seconds)


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="500,5000,20000")
    parser.add_argument("--page", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.page:
        write_page(*args.page)
        return
    from playwright.sync_api import sync_playwright

    print("| ops | command | page written in | size | drawn in |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size in map(int, args.sizes.split(",")):
            graph, plan, page = (Path(folder) / f"{size}.{end}" for end in ("json", "plan.json", "html"))
            write_graph(dag("layered", size, 1), graph)
            command("place", graph, "--cluster", "4x1TiB", "--placer", "m-etf", "-o", plan)
            wall, alone = command("report", plan, "-o", page), page_seconds(plan, page)
            weight = page.stat().st_size / 1e6
            print(
                f"| {size:,} | {wall:.1f} s | {alone:.1f} s | {weight:.1f} MB | {drawn(browser, page):.2f} s |",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main()

"""How quick the Pareto page is with many trials: seconds in a real browser, from the click to what is seen.

    python benchmarks/page.py --output DIR [--trials 100,1000,5000] [--repetitions 3]

Made-up trials of 20 channel groups are written into a SQLite database of MLflow's once; `mlflow/serve.sh`
serves it with one worker, and headless Chromium opens the page anew each time. "front": the front is drawn;
"all": every trial is on the page; "limit": half of them are left after a limit was typed; "sort": the table
begins with another trial after a click; "click": a point's network is shown; "update": a trial that just
ended appears. Seconds are wall time, the server's included. The database stays in the output folder.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import click
from importance_common import Rows
from playwright.sync_api import Page, expect, sync_playwright
from tracking import GROUPS, OBJECTIVES, make_trial, serve

from dirprune.cli.printing import format_table
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tracking.uploader import Uploader
from dirprune.tracking.views import view_counts, view_progress

STUDY = "page"
N_EPOCHS = 3
PATIENCE_MS = 300_000
MEASURES = ("front", "all", "limit", "sort", "click", "update")


def make_trials(n_trials: int) -> list[TrialRecord]:
    """Return finished trials along a front, most of them behind it."""
    rng = random.Random(0)
    trials = []
    for number in range(n_trials):
        trial = make_trial(number, N_EPOCHS)
        cost = rng.uniform(0.05, 1.0)
        metrics = {"macs": 3e8 * cost, "val_accuracy": 0.95 * cost**0.05 - rng.expovariate(20)}
        trial.metrics.update(metrics)
        trials.append(trial)
    return trials


def make_uploader(uri: str, output: Path, n_trials: int) -> Uploader:
    """Return what brings trials of the study to a store."""
    folder = StudyFolder(output / STUDY)
    folder.root.mkdir(exist_ok=True)
    costs, reference = {"macs": 3e8, "parameters": 1e7}, {"val_accuracy": 0.1, "macs": 3e8}
    summary = StudySummary(STUDY, STUDY, folder, OBJECTIVES, reference, costs, GROUPS, n_trials, 0)
    uploader = Uploader(summary, uri, None)
    uploader.connect()
    return uploader


def fill(database: Path, trials: list[TrialRecord]) -> None:
    """Write the study's trials, and its hypervolume after each."""
    uploader = make_uploader(f"sqlite:///{database}", database.parent, len(trials))
    for trial in mark_front(trials, OBJECTIVES):
        uploader.upload(trial.number, trial)
        if trial.number % 1_000 == 999:
            click.echo(f"{trial.number + 1:,} of {len(trials):,} trials written")
    tell_study(uploader, len(trials))


def tell_study(uploader: Uploader, n_trials: int) -> None:
    """Bring the study's own run to where it stands after so many trials."""
    now_ms = round(1000 * time.time())
    points = [
        point
        for step in range(1, n_trials + 1)
        for point in view_progress(0.9 - 0.5 / step, step, {"COMPLETE": step}, now_ms)
    ]
    uploader.upload_study([*points, *view_counts({"COMPLETE": n_trials}, now_ms)], (), None)


def measure(page: Page, uri: str, n_trials: int, uploader: Uploader, newest: TrialRecord) -> dict[str, float]:
    """Open the page and use it; return the seconds of each step."""
    count = page.locator("#count")
    rows = page.locator("#trials tbody tr")
    limit = page.get_by_label("limit", exact=True)
    first = page.locator("#trials tbody tr td:first-child").first

    def opened() -> None:
        page.goto(f"{uri}/pareto?study={STUDY}")
        expect(page.locator(".point.front").first).to_be_visible()

    def limited() -> None:
        limit.fill("150M")
        expect(count).not_to_contain_text(f"{n_trials} of")

    def sorted_anew() -> None:
        before = first.inner_text()
        page.locator("#trials th", has_text="MACs of one input").get_by_role("button").click()
        expect(first).not_to_have_text(before)

    def updated() -> None:
        uploader.upload(newest.number, newest)
        expect(count).to_contain_text(f"{n_trials + 1} trials")

    seconds = {"front": clock(opened)}
    whole = expect(count)
    seconds["all"] = seconds["front"] + clock(lambda: whole.to_contain_text(f"{n_trials} of {n_trials}"))
    expect(rows.first).to_be_visible()
    page.get_by_role("button", name="Add a limit").click()
    seconds["limit"] = clock(limited)
    limit.fill("")
    whole.to_contain_text(f"{n_trials} of {n_trials}")
    seconds["sort"] = clock(sorted_anew)
    page.locator(".point.front").first.focus()
    seconds["click"] = clock(
        lambda: (page.keyboard.press("Enter"), expect(page.locator("#details h2")).to_be_visible())
    )
    seconds["update"] = clock(updated)
    return seconds


def clock(step: Callable[[], object]) -> float:
    """Return the seconds that a step takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--trials", "sizes", default="100,1000,5000", show_default=True)
@click.option("--repetitions", default=3, show_default=True)
def main(output: Path, sizes: str, repetitions: int) -> None:
    """Measure each size and print the medians."""
    output.mkdir(parents=True, exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    expect.set_options(timeout=PATIENCE_MS)
    rows = Rows(output / "page.jsonl")
    for size in map(int, sizes.split(",")):
        folder = output / f"{size}-trials"
        database = folder / "mlflow.db"
        trials = make_trials(size + repetitions)
        if not database.exists():
            folder.mkdir(exist_ok=True)
            fill(database, trials[:size])
        with serve(f"sqlite:///{database.absolute()}") as (uri, _), sync_playwright() as playwright:
            uploader = make_uploader(uri, folder, size)
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for repetition in range(repetitions):
                key = {"trials": size, "repetition": repetition}
                if rows.is_done(**key):
                    continue
                page = browser.new_page()
                page.set_default_timeout(PATIENCE_MS)
                newest = trials[size + repetition]
                rows.add(key, measure(page, uri, size + repetition, uploader, newest))
                page.close()
            browser.close()
    click.echo(tabulate(list(rows)))


def tabulate(rows: list[dict[str, float]]) -> str:
    """Return the median of each measure and, in brackets, the longest, by the number of trials."""
    lines = []
    for size in sorted({row["trials"] for row in rows}):
        here = [row for row in rows if row["trials"] == size]
        cells = []
        for name in MEASURES:
            values = sorted(row[name] for row in here)
            cells.append(f"{values[len(values) // 2]:.2f} ({values[-1]:.2f})")
        lines.append([f"{size:,}", *cells])
    return format_table(["trials", *(f"{name}, s" for name in MEASURES)], lines)


if __name__ == "__main__":
    main()

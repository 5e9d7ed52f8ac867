"""`front.html`, opened from the disk in a real browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dirprune.records.finalists import Finalist
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.front_page import write_front_html
from dirprune.records.record import TrialRecord
from dirprune.records.tables import write_front
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudySummary
from tests.browser import open_browser, open_page
from tests.page.growth import find_steps
from tests.records.example_study import (
    FINALISTS,
    LATENCY_OBJECTIVES,
    N_CHANNELS,
    OBJECTIVES,
    make_study,
    make_timed,
    make_trial,
)

LOSS = Objective("val_loss", "minimize")
NAME = 'lenet <b onclick="alert(1)">on</b> </script><img src=x onerror=alert(1)> digits'
RECORDS = mark_front(make_study(24, 0), OBJECTIVES)
FRONT = [record for record in RECORDS if record.is_front]
Show = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser, "file:///") as opened:
        yield opened


def summarise(root: Path, objectives: Sequence[Objective] = OBJECTIVES, **changes: object) -> StudySummary:
    reference = {"val_accuracy": 0.1, "macs": 498_750.0, "val_loss": 2.0, "latency_ms": 12.0}
    costs = {"macs": 498_750.0, "parameters": 40_225.0}
    names = {objective.metric: reference[objective.metric] for objective in objectives}
    summary = StudySummary(
        NAME, "5ca1ab1e", StudyFolder(root), tuple(objectives), names, costs, N_CHANNELS, 60, 0
    )
    return replace(summary, **changes)  # type: ignore[arg-type]


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Show:
    """Return a function that writes a study's page and opens it from the disk."""

    def write_and_open(
        records: Sequence[TrialRecord] = RECORDS,
        objectives: Sequence[Objective] = OBJECTIVES,
        finalists: Sequence[Finalist] = (),
        query: str = "",
        **changes: object,
    ) -> Page:
        path = tmp_path / "front.html"
        summary = summarise(tmp_path, objectives, **changes)
        write_front_html(path, summary, records, f"{NAME}: Pareto front", finalists)
        page.goto(path.as_uri() + query)
        expect(page.locator("#count")).not_to_be_empty()
        return page

    return write_and_open


def list_numbers(page: Page, table: str = "trials") -> list[int]:
    return [int(text) for text in page.locator(f"#{table} tbody td:first-child").all_inner_texts()]


def test_the_front_is_the_one_that_the_study_has_and_markup_stays_text(show: Show) -> None:
    page = show()
    assert page.locator("h1").inner_text() == f"{NAME}: Pareto front"
    expect(page.locator("#picture svg text").first).to_have_text(NAME)
    expect(page.locator("#count")).to_have_text(f"24 of 24 trials, {len(FRONT)} on the front")
    expect(page.locator("#status")).to_have_text("as of 2023-11-14 22:13 UTC: 17 finished, 7 stopped")
    expect(page.locator(".point.front")).to_have_count(len(FRONT))
    expect(page.locator(".point.stopped")).to_have_count(7)
    keys = page.locator(".point.front").evaluate_all("points => points.map(point => point.dataset.key)")
    assert sorted(map(int, keys)) == sorted(record.number for record in FRONT)
    page.locator(".point.front").first.click()
    expect(page.locator("#details h2")).to_contain_text(NAME)
    assert page.locator("b, img, a").count() == 0


def test_front_of_modelled_latencies_is_that_of_the_table_and_what_came_close_can_be_exported(
    show: Show, tmp_path: Path
) -> None:
    timed = [(0.95, 10.0), (0.94, 8.5), (0.93, 8.0), (0.92, 8.1), (0.95, 10.0)]
    records = mark_front([make_timed(n, *values) for n, values in enumerate(timed)], LATENCY_OBJECTIVES)
    write_front(tmp_path / "front.csv", records, LATENCY_OBJECTIVES)
    with (tmp_path / "front.csv").open(newline="") as file:
        front = sorted(row["trial"] for row in csv.DictReader(file))
    assert front == ["0", "2"]
    page = show(records, LATENCY_OBJECTIVES)
    expect(page.locator("#count")).to_have_text("5 of 5 trials, 2 on the front")
    keys = page.locator(".point.front").evaluate_all("points => points.map(point => point.dataset.key)")
    assert sorted(keys) == front
    details = page.locator("#details")
    for number, has_model in enumerate((True, True, True, False, False)):  # as the driver keeps them
        page.locator("#trials").get_by_role("button", name=str(number), exact=True).click()
        expect(details.locator("h2")).to_contain_text(f"Trial {number} of")
        expect(details.locator("code")).to_have_count(int(has_model))


def test_a_click_shows_numbers_bars_and_the_command(show: Show, tmp_path: Path) -> None:
    page = show()
    record = min(FRONT, key=lambda record: record.metrics["macs"])
    page.locator(f'.point[data-key="{record.number}"]').click()
    details = page.locator("#details")
    for text in (f"Trial {record.number} of", "1,200", f"{record.metrics['test_accuracy']:.4f}"):
        expect(details).to_contain_text(text)
    expected = [f"{record.architecture[group]} of {whole}" for group, whole in N_CHANNELS.items()]
    assert details.locator(".count").all_inner_texts() == expected
    box, kept = details.locator(".bar").nth(2).bounding_box(), details.locator(".kept").nth(2).bounding_box()
    assert box is not None
    assert kept is not None
    assert kept["width"] / box["width"] == pytest.approx(record.architecture["linear1"] / 100, abs=0.02)
    command = details.locator("code").inner_text()
    assert command == f"dirprune export {tmp_path} --trial {record.number} --format pt2"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    details.get_by_role("button", name="Copy").click()
    expect(details.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_groups_are_shown_in_forward_order_and_hundreds_fit(show: Show) -> None:
    groups = {f"layer{n}": n for n in (*range(300, 0, -1),)}
    trial = replace(make_trial(0, "sampler", 0.5, 0.9, is_front=True), architecture=dict.fromkeys(groups, 1))
    page = show([trial], n_channels=groups)
    page.locator(".point.front").click()
    assert page.locator("#details .group").all_inner_texts() == list(groups)
    box = page.locator("#details").bounding_box()
    assert box is not None
    assert box["height"] < 900


def test_limits_and_words_leave_trials_and_their_front(show: Show) -> None:
    page = show()
    page.get_by_role("button", name="Add a limit").click()
    page.get_by_label("limit", exact=True).fill("150k")
    left = [record for record in RECORDS if record.metrics["macs"] <= 150_000]
    assert 2 < len(left) < 20
    expect(page.locator("#trials tbody tr")).to_have_count(len(left))
    assert sorted(list_numbers(page)) == sorted(record.number for record in left)
    n_front = sum(record.is_front for record in mark_front(left, OBJECTIVES))
    expect(page.locator(".point.front")).to_have_count(n_front)
    page.reload()
    expect(page.locator("#trials tbody tr")).to_have_count(len(left))
    page.get_by_role("button", name="remove this limit").click()
    page.get_by_label("find").fill("stopped")
    expect(page.locator("#trials tbody tr")).to_have_count(7)
    page.get_by_label("find").fill("")
    page.get_by_label("one front per").select_option("method")
    methods = {record.method for record in RECORDS if record.state == "COMPLETE"}
    expect(page.locator("#picture path.front:not(.point)")).to_have_count(len(methods))


@pytest.mark.parametrize(
    ("metric", "wrong", "example", "right"),
    [
        ("macs", "98%", "60M", "498.75K"),
        ("parameters", "1e999", "60M", "2e6"),
        ("val_accuracy", "60M", "93%", "100 %"),
    ],
)
def test_a_limit_that_is_no_number_of_its_metric_is_said_and_leaves_every_row(
    show: Show, metric: str, wrong: str, example: str, right: str
) -> None:
    page = show()
    page.get_by_role("button", name="Add a limit").click()
    page.get_by_label("metric of the limit").select_option(metric)
    field = page.get_by_label("limit", exact=True)
    field.fill(wrong)
    expect(field).to_have_attribute("aria-invalid", "true")
    said = f"expected a number such as {example}; this limit is left out"
    expect(field).to_have_accessible_description(said)
    expect(page.locator("#limits .problem")).to_have_text(said)
    expect(page.locator("#trials tbody tr")).to_have_count(len(RECORDS))
    field.fill(right)
    expect(field).to_have_attribute("aria-invalid", "false")
    expect(page.locator("#limits .problem")).to_have_text("")
    expect(page.locator("#trials tbody tr")).to_have_count(len(RECORDS))
    field.fill("0")
    expect(page.locator("#trials tbody tr")).to_have_count(0)


def test_the_table_sorts_and_shows_what_is_kept(show: Show) -> None:
    page = show()
    best_first = sorted(RECORDS, key=lambda record: (-record.metrics["val_accuracy"], record.number))
    assert list_numbers(page) == [record.number for record in best_first]
    best = best_first[0].architecture.values()
    expect(page.locator("#trials tbody tr").first).to_contain_text("-".join(map(str, best)))
    head = page.locator("#trials th", has_text="MACs of one input").get_by_role("button")
    head.click()
    cheap_first = sorted(RECORDS, key=lambda record: (record.metrics["macs"], record.number))
    expect(page.locator("#trials tbody td:first-child").first).to_have_text(str(cheap_first[0].number))
    assert list_numbers(page) == [record.number for record in cheap_first]
    head.click()
    expect(page.locator("#trials tbody tr").first).to_contain_text("498,750")


def test_what_is_downloaded_is_what_is_shown(show: Show, tmp_path: Path) -> None:
    page = show(query="?limit=macs%3C%3D150k")
    starts = {"csv": b"study,trial,", "svg": b"<svg", "png": b"\x89PNG"}
    for kind, start in starts.items():
        with page.expect_download() as waiting:
            page.locator(f"#{kind}").click()
        waiting.value.save_as(tmp_path / f"saved.{kind}")
        assert (tmp_path / f"saved.{kind}").read_bytes().startswith(start)
    with (tmp_path / "saved.csv").open(newline="") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    left = {record.number: record for record in RECORDS if record.metrics["macs"] <= 150_000}
    assert rows.keys() == left.keys()
    for number, row in rows.items():
        assert row["study"] == NAME
        assert {name: float(row[name]) for name in left[number].metrics} == left[number].metrics
        assert int(row["channels.conv2"]) == left[number].architecture["conv2"]
    assert "var(" not in (tmp_path / "saved.svg").read_text()


def test_the_front_is_reached_by_keyboard(show: Show) -> None:
    page = show()
    by_cost = sorted(FRONT, key=lambda record: record.metrics["macs"])
    page.locator("#text").focus()
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.dataset.key")
    places = [record.number for record in by_cost]
    step = 1 if places.index(int(focused)) == 0 else -1
    page.keyboard.press("ArrowRight" if step > 0 else "ArrowLeft")
    page.keyboard.press("Enter")
    expected = places[places.index(int(focused)) + step]
    expect(page.locator("#details h2")).to_contain_text(f"Trial {expected} of")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(page: Page, show: Show, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    show(finalists=FINALISTS)
    page.locator(".point.final").click()
    expect(page.locator("#details h2")).to_be_visible()
    page.get_by_role("combobox", name="over", exact=True).select_option("time")
    label = page.locator("#hypervolume svg").get_by_text("since the first trial began").last.bounding_box()
    assert label is not None
    assert 0 <= label["x"] < label["x"] + label["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper = page.locator("#picture svg > rect").first.get_attribute("fill")
    assert paper == {"light": "#ffffff", "dark": "#14171a"}[scheme]


def test_on_a_phone_numbers_are_seen_commands_are_whole_and_details_close(page: Page, show: Show) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    show(finalists=FINALISTS)
    for label in ("validation accuracy", "MACs of one input"):
        box = page.locator("#trials th", has_text=label).bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 360
    page.locator(".point.final").click()
    details = page.locator("#details")
    words = details.locator("code").first.locator("span")
    assert [word for word in words.all_inner_texts() if word.startswith("--")] == ["--finalist", "--format"]
    heights = words.evaluate_all(
        "words => words.filter((word) => !word.textContent.includes('/')).map((word) => word.offsetHeight)"
    )
    assert len(set(heights)) == 1  # a word on two lines is twice as high
    details.get_by_role("button", name="Close").click()
    expect(details).to_be_hidden()


def test_what_a_finalist_has_as_its_trial_has_it_is_said_once(show: Show) -> None:
    page = show(finalists=FINALISTS)
    page.locator("#finalists").get_by_role("button", name="7", exact=True).click()
    details = page.locator("#details")
    expect(details).to_contain_text("validation accuracy as finalist")
    expect(details).not_to_contain_text("wall time in s as finalist")  # 3.5 in both


def test_an_axis_of_close_accuracies_has_marks_to_read_them_by(show: Show) -> None:
    records = [make_trial(number, "sampler", 0.2 + number / 10, 0.87 + number / 100) for number in range(5)]
    marks = show(mark_front(records, OBJECTIVES)).locator('#picture text[text-anchor="end"]')
    assert {"0.87", "0.88", "0.89", "0.9", "0.91"} <= set(marks.all_text_contents())


def test_no_line_of_the_grid_lies_outside_of_the_picture(show: Show) -> None:
    records = [
        make_trial(number, "sampler", 0.2 + number / 10, 0.8403 + number * 0.03) for number in range(5)
    ]
    page = show(mark_front(records, OBJECTIVES))
    grid = [path.get_attribute("d") or "" for path in page.locator("#picture svg > path").all()]
    frame = next(
        re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)H[\d.]+", line)
        for line in grid
        if "V" in line and "H" in line
    )
    assert frame is not None
    heights = [float(found[1]) for line in grid if (found := re.fullmatch(r"M[\d.]+ ([\d.]+)H[\d.]+", line))]
    assert len(heights) >= 3
    assert all(float(frame[1]) <= height <= float(frame[2]) for height in heights)


def test_the_hypervolume_grows_with_finished_trials(show: Show) -> None:
    page = show()
    line = page.locator("#hypervolume .hypervolume").get_attribute("d") or ""
    heights = [float(y) for y in re.findall(r"V([\d.]+)", line)]
    assert len(heights) > 2
    assert heights == sorted(heights, reverse=True)


def place_ended(number: int, keep_ratio: float, start: float, end: float, **changes: object) -> TrialRecord:
    """Return a trial that began and ended so many seconds after 1.7e9."""
    times = (1.7e9 + start, 1.7e9 + end)
    return make_trial(number, "sampler", keep_ratio, 0.97, started_at=times[0], times=times, **changes)


def test_the_hypervolume_over_time_counts_from_the_start_of_the_first_trial(show: Show) -> None:
    stopped = place_ended(0, 0.9, 100, 400, state="PRUNED")  # began first
    ended = [
        place_ended(1, 0.8, 1600, 4300),
        place_ended(2, 0.6, 1000, 1900),
        place_ended(3, 0.3, 2000, 9100),
    ]
    page = show([stopped, *ended])
    over = page.get_by_role("combobox", name="over", exact=True)
    expect(over).to_have_value("trials")
    assert find_steps(page, "finished trials") == pytest.approx([1, 3], abs=0.02)  # the second adds nothing
    over.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#hypervolume svg title")).to_have_text(
        "hypervolume over hours since the first trial began"
    )
    hours = [(1900 - 100) / 3600, (9100 - 100) / 3600]
    assert find_steps(page, "hours since the first trial began") == pytest.approx(hours, abs=0.02)
    expect(over).to_be_focused()
    assert "over=time" in page.url
    page.reload()
    expect(over).to_have_value("time")
    over.select_option("trials")
    assert find_steps(page, "finished trials") == pytest.approx([1, 3], abs=0.02)
    assert "over=" not in page.url


@pytest.mark.parametrize(
    ("end", "unit", "steps"),
    [(119, "seconds", [30, 119]), (120, "minutes", [0.5, 2]), (7200, "hours", [0.0083, 2])],
)
def test_time_is_in_the_largest_unit_of_which_there_are_two(
    show: Show, end: float, unit: str, steps: list[float]
) -> None:
    records = [place_ended(0, 0.8, 0, 30), place_ended(1, 0.4, 10, end)]
    page = show(records, query="?over=time")
    assert find_steps(page, f"{unit} since the first trial began") == pytest.approx(steps, rel=0.01)


def test_an_axis_that_is_not_there_is_the_usual_one(show: Show) -> None:
    page = show(query="?over=weeks")
    expect(page.get_by_role("combobox", name="over", exact=True)).to_have_value("trials")
    expect(page.locator("#hypervolume svg title")).to_have_text("hypervolume over finished trials")


def test_the_final_front_stands_before_the_faded_one_with_bars(show: Show) -> None:
    page = show(finalists=FINALISTS)
    expect(page.locator("#count")).to_have_text(
        f"24 of 24 trials, {len(FRONT)} on the front, 1 of 2 finalists on the final front"
    )
    expect(page.locator(".point.final")).to_have_count(1)
    expect(page.locator(".point.finalist")).to_have_count(1)
    expect(page.locator(".point.searched")).to_have_count(len(FRONT))
    expect(page.locator(".point.front")).to_have_count(0)
    bar, point = page.locator(".spread").bounding_box(), page.locator(".point.final").bounding_box()
    assert bar is not None
    assert point is not None
    assert bar["height"] > point["height"] > bar["width"]
    expect(page.locator(".point.final title")).to_contain_text("0.9800 ± 0.0040")
    rows = page.locator("#finalists tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("0.9800 ± 0.0040")
    expect(rows.first).to_contain_text("yes")
    page.locator(".point.final").click()
    expect(page.locator("#details")).to_contain_text("validation accuracy as finalist0.9800 ± 0.0040")
    page.get_by_role("button", name="Add a limit").click()
    page.get_by_label("limit", exact=True).fill("200k")
    expect(rows).to_have_count(1)


def test_three_objectives_decide_the_front_and_the_third_is_the_colour(show: Show) -> None:
    objectives = (*OBJECTIVES, LOSS)
    odd = make_trial(24, "sampler", 0.9, 0.5)  # worse than others in all but the third
    odd = replace(odd, metrics={**odd.metrics, "val_loss": 0.001})
    records = mark_front([*RECORDS, odd], objectives)
    page = show(records, objectives)
    keys = page.locator(".point.front").evaluate_all("points => points.map(point => point.dataset.key)")
    assert sorted(map(int, keys)) == [record.number for record in records if record.is_front]
    assert "24" in keys
    expect(page.get_by_label("colour by")).to_have_value("val_loss")
    expect(page.locator('.point[data-key="24"]')).to_have_attribute("fill", "#440154")
    assert page.locator("#picture path.front:not(.point)").count() == 0


def test_one_objective_is_shown_over_trials_with_the_best_so_far(show: Show) -> None:
    objectives = OBJECTIVES[:1]
    records = mark_front(
        [make_trial(n, "sampler", 0.5, value) for n, value in enumerate((0.6, 0.5, 0.8, 0.7))], objectives
    )
    page = show(records, objectives)
    expect(page.get_by_label("against")).to_have_value("number")
    expect(page.locator(".point.front")).to_have_attribute("data-key", "2")
    line = page.locator("#picture path.front:not(.point)").get_attribute("d") or ""
    assert re.fullmatch(r"M[\d. ]+H[\d.]+V[\d.]+H[\d.]+", line)


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_a_study_without_trials_and_one_with_finalists_are_shown(show: Show, n_objectives: int) -> None:
    objectives = (*OBJECTIVES, LOSS)[:n_objectives]
    expect(show([], objectives).locator("#count")).to_have_text("0 of 0 trials, 0 on the front")
    page = show(mark_front(RECORDS, objectives), objectives, FINALISTS)
    expect(page.locator("#finalists tbody tr")).to_have_count(2)


def test_only_what_is_worth_having_can_be_on_the_front_and_exported(show: Show) -> None:
    why = "val_accuracy is 0.0200 below the least"
    poor = make_trial(2, "sampler", 0.1, 0.93, is_acceptable=False, reason=why)
    paused = make_trial(4, "sampler", 0.2, 0.95, state="RUNNING", is_paused=True)
    failed = make_trial(5, "sampler", 0.3, 0.95, state="FAIL", reason="loss is not finite")
    broken = replace(failed, metrics={**failed.metrics, "val_loss": float("nan")})
    waiting = make_trial(6, "sampler", 0.3, 0.95, state="WAITING")
    others = [make_trial(0, "dense", 1.0, 0.99), make_trial(1, "uniform", 0.5, 0.98)]
    page = show(mark_front([*others, poor, paused, broken, waiting], OBJECTIVES))
    expect(page.locator("#count")).to_have_text("5 of 5 trials, 2 on the front")
    expect(page.locator("#status")).to_contain_text("3 finished, 1 failed, 1 paused")
    expect(page.locator(".point.stopped")).to_have_count(1)
    details = page.locator("#details")
    for number, said, n_commands in ((2, why, 0), (5, "loss is not finite", 0), (1, "finished", 1)):
        page.locator("#trials").get_by_role("button", name=str(number), exact=True).click()
        expect(details).to_contain_text(said)
        expect(details.locator("code")).to_have_count(n_commands)
    page.get_by_role("button", name="Add a limit").click()
    page.get_by_label("metric of the limit").select_option("val_loss")
    page.get_by_label("limit", exact=True).fill("1")
    expect(page.locator("#count")).to_have_text(
        "4 of 5 trials, 2 on the front"
    )  # not a number keeps no limit


def test_thousands_of_trials_make_a_small_file(tmp_path: Path) -> None:
    sizes = []
    for n_trials in (0, 2000):
        records = mark_front(make_study(n_trials)[:n_trials], OBJECTIVES)
        write_front_html(tmp_path / "front.html", summarise(tmp_path), records)
        sizes.append((tmp_path / "front.html").stat().st_size)
    assert sizes[0] < 100_000
    assert sizes[1] - sizes[0] < 2000 * 200

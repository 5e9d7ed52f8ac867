"""The Pareto page of a real MLflow server in a real browser."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from dirprune.records.front import mark_front
from dirprune.records.record import TrialRecord
from dirprune.tracking.views import Status, view_finalists, view_progress, view_study
from tests.page.growth import find_steps
from tests.records.example_study import (
    FINALISTS,
    LATENCY_OBJECTIVES,
    OBJECTIVES,
    make_study,
    make_timed,
    make_trial,
)
from tests.server.conftest import NAME, TrackedStudy
from tests.tracking.mlflow_process import MlflowServer

pytestmark = pytest.mark.slow
RECORDS = mark_front(make_study(24, 0), OBJECTIVES)
FRONT = [record for record in RECORDS if record.is_front]


def open_study(page: Page, server: MlflowServer, query: str = "?study=5ca1ab1e") -> None:
    page.goto(f"{server.uri}/pareto{query}")
    expect(page.locator("#status")).to_contain_text("as of")


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def list_numbers(page: Page) -> list[int]:
    return [int(text) for text in page.locator("#trials tbody td:first-child").all_inner_texts()]


def read_legend(page: Page, picture: str) -> dict[str, str | None]:
    """Return the colour of each name in a picture's legend, in its order."""
    entries = page.locator(f"{picture} svg > g")
    return {
        entry.text_content() or "": entry.locator("path").get_attribute("fill") for entry in entries.all()
    }


def test_studies_are_listed_and_a_name_with_markup_stays_text(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server, "")
    expect(page.locator("#studies tbody tr")).to_have_count(2)
    expect(page.locator("#view")).to_be_hidden()
    assert page.locator("#studies tbody label").all_inner_texts() == ["second", NAME]
    page.get_by_label(NAME, exact=True).check()
    expect(page.locator("#picture svg text").first).to_have_text(NAME)
    page.locator(".point.front").first.click()
    expect(page.locator("#details h2")).to_contain_text(NAME)
    assert page.locator("b, img").count() == 0


@pytest.mark.parametrize(
    ("status", "is_paused", "state"),
    [
        ("RUNNING", False, "running"),
        ("RUNNING", True, "stopped"),
        ("KILLED", False, "stopped"),
        ("FAILED", True, "failed"),
        ("FINISHED", False, "ended"),
    ],
)
def test_the_list_says_how_a_study_stands_and_since_when_with_no_more_requests(
    page: Page, server: MlflowServer, tmp_path: Path, status: Status, is_paused: bool, state: str
) -> None:
    name = f"{status} {is_paused}"
    study = TrackedStudy(server.uri, tmp_path, name, name.lower().replace(" ", "-"))
    before, news = 1_900_000_000_000, 1_900_000_060_000  # beyond the start and the end of the run
    points = view_progress(0.5, 1, {"COMPLETE": 1}, before) + view_progress(0.6, 2, {"COMPLETE": 2}, news)
    study.store.update_(study.run, view_study(study.summary, status, points, is_paused))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("mlflow/")[2].partition("?")[0]))
    open_study(page, server, "")
    cells = page.locator("#studies tbody tr", has_text=name).locator("td")
    expect(cells.nth(1)).to_have_text(state)
    expect(cells.last).to_have_text(page.evaluate(f"new Date({news}).toLocaleString()"))
    assert set(filter(None, asked)) == {"experiments/get-by-name", "runs/search"}


def test_studies_that_are_not_there_are_said_and_markup_in_an_address_stays_text(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    said = page.locator("#unknown")
    open_study(page, server, "?study=nonesuch")
    expect(said).to_have_text("There is no study with the id nonesuch here.")
    expect(page.locator("#view")).to_be_hidden()
    below, listed = said.bounding_box(), page.locator("#studies").bounding_box()
    assert below is not None
    assert listed is not None
    assert below["y"] + below["height"] <= listed["y"]
    open_study(page, server, "?study=%3Cimg%20src=x%20onerror=alert(1)%3E&study=decade&study=a%26b")
    expect(said).to_have_text("There are no studies with the ids <img src=x onerror=alert(1)>, a&b here.")
    expect(page.locator("#count")).to_contain_text("of 12 trials")
    assert page.locator("img").count() == 0
    open_study(page, server, "?study=decade")
    expect(page.locator("#count")).to_contain_text("of 12 trials")
    expect(said).to_be_hidden()


def test_no_study_is_called_missing_before_the_server_has_answered(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    page.route("**/ajax-api/**", lambda route: route.abort())
    page.goto(f"{server.uri}/pareto?study=decade")
    expect(page.locator("#status")).to_contain_text("does not answer")
    page.set_viewport_size({"width": 900, "height": 700})  # draws again
    page.wait_for_timeout(300)
    expect(page.locator("#unknown")).to_be_hidden()
    expect(page.locator("#none")).to_be_hidden()
    page.unroute("**/ajax-api/**")
    expect(page.locator("#count")).to_contain_text("of 12 trials")


def test_the_front_is_the_one_that_the_study_has(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    expect(page.locator("#count")).to_have_text(f"24 of 24 trials, {len(FRONT)} on the front")
    expect(page.locator(".point.front")).to_have_count(len(FRONT))
    n_stopped = sum(record.state == "PRUNED" for record in RECORDS)
    expect(page.locator(".point.stopped")).to_have_count(n_stopped)
    expect(page.locator(".point.dominated")).to_have_count(24 - len(FRONT) - n_stopped)
    expect(page.locator("#hypervolume .hypervolume")).to_have_count(1)


def test_a_click_shows_the_architecture_the_run_and_the_command(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    record = min(FRONT, key=lambda record: record.metrics["macs"])
    run = studies[0].runs[record.number].run_id
    page.locator(f'.point[data-key="{run}"]').click()
    details = page.locator("#details")
    expect(details.locator("h2")).to_contain_text(f"Trial {record.number} of")
    expected = [
        f"{kept} of {whole}"
        for kept, whole in zip(record.architecture.values(), (10, 20, 100, 25), strict=True)
    ]
    assert details.locator(".count").all_inner_texts() == expected
    box, kept = details.locator(".bar").nth(2).bounding_box(), details.locator(".kept").nth(2).bounding_box()
    assert box is not None
    assert kept is not None
    assert kept["width"] / box["width"] == pytest.approx(record.architecture["linear1"] / 100, abs=0.02)
    command = details.locator("code").inner_text()
    folder = studies[0].summary.folder.root
    assert command == f"dirprune export {folder} --trial {record.number} --format pt2"
    link = details.get_by_role("link", name="Its run in MLflow")
    assert (link.get_attribute("href") or "").endswith(f"/runs/{run}")
    link.click()
    page.get_by_text(f"trial {record.number} of {NAME}", exact=True).first.wait_for()


def test_a_limit_leaves_the_trials_that_keep_it_and_their_front(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    page.get_by_role("button", name="Add a limit").click()
    page.get_by_label("limit", exact=True).fill("150k")
    left = sorted(record.number for record in RECORDS if record.metrics["macs"] <= 150_000)
    assert 2 < len(left) < 20
    expect(page.locator("#trials tbody tr")).to_have_count(len(left))
    assert sorted(list_numbers(page)) == left
    page.get_by_label("limit", exact=True).fill("many")
    expect(page.get_by_label("limit", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#trials tbody tr")).to_have_count(24)
    page.get_by_label("limit", exact=True).fill("98%")
    page.get_by_label("metric of the limit").select_option("val_accuracy")
    page.get_by_label("kind of limit").select_option("least")
    accurate = [record for record in RECORDS if record.metrics["val_accuracy"] >= 0.98]
    expect(page.locator("#trials tbody tr")).to_have_count(len(accurate))
    assert "limit=val_accuracy%3E%3D98%25" in page.url
    page.reload()
    expect(page.locator("#trials tbody tr")).to_have_count(len(accurate))


def test_the_table_sorts_by_a_click_and_back_by_another(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    best_first = sorted(RECORDS, key=lambda record: (-record.metrics["val_accuracy"], record.number))
    assert list_numbers(page) == [record.number for record in best_first]
    head = page.locator("#trials th", has_text="MACs of one input").get_by_role("button")
    cheap_first = sorted(RECORDS, key=lambda record: (record.metrics["macs"], record.number))
    head.click()
    expect(page.locator("#trials tbody tr").first).to_contain_text(f"{cheap_first[0].metrics['macs']:,.0f}")
    assert list_numbers(page)[:10] == [record.number for record in cheap_first][:10]
    head.click()
    expect(page.locator("#trials tbody tr").first).to_contain_text("498,750")


def test_fronts_of_several_studies_and_of_methods_lie_over_each_other(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server, "?study=decade&study=5ca1ab1e")
    expect(page.locator("#picture path.front:not(.point)")).to_have_count(2)
    expect(page.locator("#count")).to_contain_text("of 36 trials")
    expect(page.locator("#hypervolume .hypervolume")).to_have_count(2)
    assert read_legend(page, "#hypervolume") == dict(list(read_legend(page, "#picture").items())[:2])
    page.get_by_label("one front per").select_option("method")
    methods = {record.method for record in RECORDS if record.state == "COMPLETE"}
    expect(page.locator("#picture path.front:not(.point)")).to_have_count(len(methods))
    page.get_by_label("against").select_option("parameters")
    expect(page.locator("#picture svg title").first).to_contain_text("against parameters")


def test_what_is_downloaded_is_what_is_shown(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    open_study(page, server, "?study=5ca1ab1e&limit=macs%3C%3D150k")
    starts = {"csv": b"study,trial,", "svg": b"<svg", "png": b"\x89PNG"}
    for kind, start in starts.items():
        with page.expect_download() as waiting:
            page.locator(f"#{kind}").click()
        waiting.value.save_as(tmp_path / f"front.{kind}")
        assert (tmp_path / f"front.{kind}").read_bytes().startswith(start)
    with (tmp_path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_number = {record.number: record for record in RECORDS}
    assert {int(row["trial"]) for row in rows} == {
        record.number for record in RECORDS if record.metrics["macs"] <= 150_000
    }
    for row in rows:
        record = by_number[int(row["trial"])]
        assert row["study"] == NAME
        assert float(row["val_accuracy"]) == record.metrics["val_accuracy"]
        assert int(row["channels.conv2"]) == record.architecture["conv2"]
    assert "var(" not in (tmp_path / "front.svg").read_text()


def test_the_front_is_reached_by_keyboard(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    first = min(FRONT, key=lambda record: record.metrics["macs"])
    second = sorted(FRONT, key=lambda record: record.metrics["macs"])[1]
    page.locator("#picture [tabindex='0']").focus()
    page.keyboard.press("Home")
    while str(first.number) != page.evaluate("document.activeElement.ariaLabel").split(",")[0].split()[1]:
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#details h2")).to_contain_text(f"Trial {second.number} of")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], scheme: str, tmp_path: Path
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    open_study(page, server)
    page.locator(".point.front").first.click()
    expect(page.locator("#details h2")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper = page.locator("#picture svg > rect").get_attribute("fill")
    assert paper == {"light": "#ffffff", "dark": "#14171a"}[scheme]
    line = page.locator("#picture path.front:not(.point)").get_attribute("stroke") or ""
    assert contrast(line, paper) >= 4.5
    page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)


def test_a_new_trial_and_an_ended_one_appear_by_themselves(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    live = TrackedStudy(server.uri, tmp_path, "live", "11fe")
    records = mark_front([*make_study(6, 2)], OBJECTIVES)
    live.tell(records)
    open_study(page, server, "?study=11fe")
    expect(page.locator("#count")).to_contain_text("6 of 6 trials")
    page.locator("#trials tbody button").first.click()
    running = make_trial(6, "sampler", 0.05, 0.97, state="RUNNING")
    live.tell([replace(running, curve=running.curve[:2])])
    expect(page.locator(".point.running")).to_have_count(1)
    expect(page.locator("#count")).to_contain_text("7 of 7 trials")
    live.tell([replace(running, state="COMPLETE", is_front=True)])
    run = live.runs[6].run_id
    expect(page.locator(f'.point.front[data-key="{run}"]')).to_have_count(1)
    expect(page.locator(".point.running")).to_have_count(0)
    expect(page.locator("#details h2")).to_be_visible()


def make_later(
    number: int, minutes: float, keep_ratio: float, accuracy: float, **changes: object
) -> TrialRecord:
    """Return a trial that began so long after the others."""
    trial = make_trial(number, "sampler", keep_ratio, accuracy, **changes)
    times = tuple(time + 60 * minutes for time in trial.times)
    return replace(trial, times=times, started_at=times[0])


def test_the_hypervolume_over_time_counts_from_the_start_of_the_first_trial(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    study = TrackedStudy(server.uri, tmp_path, "timed", "71ed")  # its run begins now, years after its trials
    study.tell([make_later(0, 1, 0.9, 0.98), make_later(1, 0, 0.8, 0.97), make_later(2, 5, 0.6, 0.96)])
    start_ms = 1_700_000_001_000  # trial 1, which `make_trial` has begin a second after 1.7e9
    points = [
        point
        for n, minutes in ((4, 3.0), (5, 6.5), (6, 47.0))
        for point in view_progress(0.5 + n / 100, n, {"COMPLETE": n}, start_ms + round(60_000 * minutes))
    ]
    study.store.update_(study.run, view_study(study.summary, "RUNNING", points))
    open_study(page, server, "?study=71ed&over=time")
    expect(page.get_by_role("combobox", name="over", exact=True)).to_have_value("time")
    steps = find_steps(page, "minutes since the first trial began")
    assert steps[-3:] == pytest.approx([3, 6.5, 47], abs=0.1)
    page.get_by_role("combobox", name="over", exact=True).select_option("trials")
    assert find_steps(page, "finished trials") == pytest.approx([1, 2, 3, 4, 5, 6], abs=0.02)


def test_a_trial_that_leaves_the_front_can_no_longer_be_exported(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    study = TrackedStudy(server.uri, tmp_path, "left", "1ef7")
    records = [make_trial(0, "dense", 1.0, 0.99), make_trial(1, "uniform", 0.5, 0.97)]
    study.tell(mark_front(records, OBJECTIVES))
    open_study(page, server, "?study=1ef7")
    page.locator(f'.point[data-key="{study.runs[1].run_id}"]').click()
    details = page.locator("#details")
    expect(details.locator("code")).to_have_count(1)
    study.tell(mark_front([*records, make_later(2, 10, 0.4, 0.98)], OBJECTIVES))
    expect(page.locator("#count")).to_have_text("3 of 3 trials, 2 on the front")
    expect(details.locator("code")).to_have_count(0)
    expect(details.locator("h2")).to_contain_text("Trial 1 of")


def test_each_study_has_the_front_that_its_own_error_of_latencies_leaves(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    timed = [make_timed(n, *values) for n, values in enumerate([(0.95, 10.0), (0.94, 8.5), (0.93, 8.0)])]
    accuracy, latency = LATENCY_OBJECTIVES
    for study_id, margin, front in (("fa57", 0.1, {0, 2}), ("e8ac7", 0.0, {0, 1, 2})):
        objectives = (accuracy, replace(latency, margin=margin))
        study = TrackedStudy(server.uri, tmp_path, f"by {margin}", study_id, objectives=objectives)
        records = mark_front(timed, objectives)
        study.tell(records)
        assert {record.number for record in records if record.is_front} == front
        open_study(page, server, f"?study={study_id}")
        expect(page.locator("#count")).to_have_text(f"3 of 3 trials, {len(front)} on the front")
        for number in range(3):
            page.locator(f'.point[data-key="{study.runs[number].run_id}"]').click()
            expect(page.locator("#details h2")).to_contain_text(f"Trial {number} of")
            expect(page.locator("#details code")).to_have_count(1)
    open_study(page, server, "?study=fa57&study=e8ac7")
    expect(page.locator("#count")).to_have_text("6 of 6 trials, 5 on the fronts")


def test_a_trial_that_is_told_late_appears_beside_one_that_is_paused(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    study = TrackedStudy(server.uri, tmp_path, "late", "1a7e")
    paused = make_later(3, 20, 0.2, 0.95, state="RUNNING", is_paused=True)
    others = [make_trial(0, "dense", 1.0, 0.99), make_later(2, 10, 0.5, 0.98)]
    study.tell(mark_front([*others, paused], OBJECTIVES))
    open_study(page, server, "?study=1a7e")
    expect(page.locator("#count")).to_have_text("3 of 3 trials, 2 on the front")
    study.tell(
        [make_trial(1, "sampler", 0.6, 0.97)]
    )  # ended minutes before the newest, and is not on the front
    expect(page.locator("#count")).to_have_text("4 of 4 trials, 2 on the front")


def test_trials_whose_run_was_deleted_are_asked_for_ever_more_rarely(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    study = TrackedStudy(server.uri, tmp_path, "deleted", "de1e7ed")
    trials = [make_trial(0, "dense", 1.0, 0.99), make_trial(1, "sampler", 0.5, 0.98)]
    study.tell(mark_front([*trials, make_trial(2, "sampler", 0.6, 0.97)], OBJECTIVES))
    MlflowClient(server.uri).delete_run(study.runs[2].run_id)
    page.clock.install()
    searches: list[str] = []
    page.on("request", lambda request: searches.append(request.post_data or ""))
    open_study(page, server, "?study=de1e7ed")
    expect(page.locator("#count")).to_have_text("2 of 2 trials, 2 on the front")
    for _ in range(10):
        before = page.locator("#status").inner_text()
        page.clock.run_for(4_000)
        expect(page.locator("#status")).not_to_have_text(before)
    n_whole = sum("start_time >= 0" in search for search in searches)
    assert 2 <= n_whole <= 5  # at first, and 5, 10, 20 and 40 s after each other


def test_only_what_is_worth_having_is_on_the_front_and_only_that_can_be_exported(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    study = TrackedStudy(server.uri, tmp_path, "least", "1ea57")
    why = "val_accuracy is 0.0200 below the least"
    poor = make_trial(2, "sampler", 0.1, 0.93, is_acceptable=False, reason=why)
    paused = make_trial(4, "sampler", 0.2, 0.95, state="RUNNING", is_paused=True)
    others = [make_trial(0, "dense", 1.0, 0.99), make_trial(1, "uniform", 0.5, 0.98)]
    dominated = make_trial(3, "sampler", 0.7, 0.97)
    study.tell(mark_front([*others, poor, dominated, paused], OBJECTIVES))
    open_study(page, server, "?study=1ea57")
    expect(page.locator("#count")).to_have_text("5 of 5 trials, 2 on the front")
    expect(page.locator(".point.dominated")).to_have_count(2)
    expect(page.locator(".point.running")).to_have_count(0)
    expect(page.locator(".point.stopped")).to_have_count(1)
    expect(page.locator("#trials tbody")).to_contain_text("paused")
    details = page.locator("#details")
    for number, said in ((2, why), (3, "finished")):
        page.locator(f'.point[data-key="{study.runs[number].run_id}"]').click()
        expect(details).to_contain_text(said)
        expect(details.locator("code")).to_have_count(0)
    page.locator(f'.point[data-key="{study.runs[1].run_id}"]').click()
    expect(details.locator("code")).to_have_count(1)


def test_finalists_stand_before_the_front_of_the_search(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    own = {"network": '{"module": "mine", "name": "Mine", "options": {}}'}
    study = TrackedStudy(server.uri, tmp_path, "finals", "f17a1", description=own)
    study.tell(RECORDS)
    points = view_finalists(FINALISTS, 1_700_000_001_000)
    study.store.update_(study.run, view_study(study.summary, "FINISHED", points))
    open_study(page, server, "?study=f17a1")
    expect(page.locator("#count")).to_contain_text("1 of 2 finalists on the final front")
    expect(page.locator(".point.final title")).to_contain_text("0.9800 ± 0.0040")
    expect(page.locator(".point.searched")).to_have_count(len(FRONT))
    row = page.locator("#finalists tbody tr").first
    assert row.locator("td").all_inner_texts()[:3] == ["7", "yes", "3"]
    row.get_by_role("button").click()
    command = page.locator("#details code").first
    expect(command).to_have_text(
        f"dirprune export {study.summary.folder.root} --finalist 7 --format pt2 --network FILE.py:Mine"
    )


def test_two_studies_of_one_name_have_a_front_each(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...], tmp_path: Path
) -> None:
    namesake = TrackedStudy(server.uri, tmp_path, "second", "f00df00df00d")
    namesake.tell(mark_front(make_study(12, 2), OBJECTIVES))
    open_study(page, server, "?study=decade&study=f00df00df00d")
    expect(page.locator("#picture path.front:not(.point)")).to_have_count(2)
    legend = read_legend(page, "#picture")
    assert list(legend)[:2] == ["second (decade)", "second (f00df00d)"]
    assert read_legend(page, "#hypervolume") == dict(list(legend.items())[:2])
    assert len(set(list(legend.values())[:2])) == 2


def test_a_server_that_is_away_is_said_and_what_was_known_stays(
    page: Page, server: MlflowServer, studies: tuple[TrackedStudy, ...]
) -> None:
    open_study(page, server)
    page.context.set_offline(True)
    expect(page.locator("#status")).to_contain_text("does not answer")
    expect(page.locator("#trials tbody tr")).to_have_count(24)
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_text(re.compile("as of"))

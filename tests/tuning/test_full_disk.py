"""A full disk is no trial's fault: the study ends in order, and with room again it goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.errors import StorageError
from dirprune.records.ending import read_ending
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.tuning import full_disk, storage
from dirprune.tuning.full_disk import FullDiskWatch, has_room

TOY = Path(__file__).parent.parent / "integration" / "toy_study.py"
NO_SPACE = "OSError: [Errno 28] No space left on device"


class Accounts:
    """Accounts that take down what they are told, and whose journal may be full."""

    may_have_more = True

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.error: Exception | None = None

    def take(self, *what: object) -> bool:
        if self.error is not None:
            raise self.error
        self.told.append(what)
        return True

    def next_configuration(self) -> str:
        self.take("next")
        return "configuration"

    def reported(self, number, images, metrics):
        return self.take("reported", number)

    def completed(self, number, metrics):
        self.take("completed", number)

    def halted(self, number, images):
        self.take("halted", number)

    def failed(self, number, reason=""):
        self.take("failed", number, reason)


def test_a_storage_that_is_lost_ends_the_run_and_fails_no_trial(tmp_path):
    accounts = Accounts()
    watch = FullDiskWatch(accounts, tmp_path)
    watch.failed(2, "StorageError: cannot write to the storage s3://a/b (TimeoutError)")
    assert watch.next_configuration() is None
    assert accounts.told == []
    assert full_disk.describe_full_disk(tmp_path, watch.reason) == (
        "cannot write to the storage s3://a/b (TimeoutError); "
        "when it answers again, the same command with --resume goes on"
    )
    full = "StorageError: cannot write to the storage s3://a/b (XMinioStorageFull: no drive has room)"
    assert "; make room there, then the same command" in full_disk.describe_full_disk(tmp_path, full)
    own = FullDiskWatch(accounts, tmp_path)
    accounts.error = StorageError("cannot read from the storage s3://a/b (TimeoutError)")
    assert own.reported(1, 10, {}) is False
    assert "cannot read from the storage" in own.reason


def test_failure_for_want_of_room_is_not_told_and_ends_the_run(tmp_path):
    accounts = Accounts()
    watch = FullDiskWatch(accounts, tmp_path)
    watch.failed(1, "ValueError: no")
    assert watch.next_configuration() == "configuration"
    assert watch.may_have_more
    watch.failed(2, NO_SPACE)
    assert watch.reason == NO_SPACE
    assert watch.next_configuration() is None
    assert not watch.may_have_more
    assert watch.reported(3, 100, {}) is False, "what runs halts at its next report"
    watch.halted(3, 100)
    watch.completed(4, {})
    watch.failed(5, "ValueError: no")
    assert accounts.told == [("failed", 1, "ValueError: no"), ("next",)]


def test_failure_in_other_words_is_the_disks_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(full_disk, "has_room", lambda folder: False)
    accounts = Accounts()
    watch = FullDiskWatch(accounts, tmp_path)
    watch.failed(2, "RuntimeError: basic_ios::clear: iostream error")  # what torch says of a full disk
    assert watch.reason
    assert accounts.told == []


def test_journal_that_cannot_be_written_ends_the_run_and_other_errors_are_raised(tmp_path):
    accounts = Accounts()
    watch = FullDiskWatch(accounts, tmp_path)
    accounts.error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError):
        watch.completed(1, {})
    accounts.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert watch.reported(1, 100, {}) is False
    assert "No space left" in watch.reason


def test_probe_leaves_nothing(tmp_path):
    assert has_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
set -eu
mkdir -p work/small && mount -t tmpfs -o size=$1 tmpfs work/small
FILL=$2
shift 2
cd work
eval "$FILL" 2> /dev/null &
"$@" > ../first.txt 2>&1 && echo 0 > ../first.status || echo $? > ../first.status
kill $! 2> /dev/null || true
cp -a . ../first
rm -f small/rest
mount -o remount,size=64m small
"$@" --resume > ../second.txt 2>&1 && echo 0 > ../second.status || echo $? > ../second.status
cp -a . ../second
"""

FILL = """
until grep -qs '"finished"' out/toy/events/*.jsonl; do sleep 0.1; done
cat /dev/zero > small/rest
"""
"""Takes all room when the first trial has ended."""


def run_on_small_disk(
    folder: Path, size: str, n_trials: int, *more: str, output: str = "small", fill: str = "true"
) -> None:
    """Run the toy study beside a small file system, then again with room there; copies stay in `folder`.

    The file system is a real one, which only the processes of this study see. Its place is `small`.

    Args:
        folder: An empty one.
        size: Of the file system.
        n_trials: Of the study.
        more: Further arguments of the study.
        output: Where it writes.
        fill: What runs beside the first run; it may take all that is left, as `small/rest`.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        mount = [*namespace, "mount", "-t", "tmpfs", "tmpfs", folder]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not let a user mount a file system: {error}")
    study = [sys.executable, TOY, "--output", output, "--trials", str(n_trials), "--no-tracking", *more]
    subprocess.run(
        [*namespace, shutil.which("bash"), "-c", SCRIPT, "bash", size, fill, *study],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=500,
    )


@pytest.mark.slow
def test_disk_too_small_for_the_dense_network_ends_in_one_line_and_goes_on_with_room(tmp_path):
    run_on_small_disk(tmp_path, "8k", 2)
    said = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.status").read_text() == "2\n", said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: expected to read and write freely, got 'No space left")
    assert (tmp_path / "second.status").read_text() == "0\n", (tmp_path / "second.txt").read_text()


@pytest.mark.slow
def test_study_on_a_full_disk_ends_in_one_line_and_goes_on_with_room(tmp_path):
    run_on_small_disk(tmp_path, "100k", 6)
    said = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.status").read_text() == "2\n", said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("error: the study ended by itself: no room is left in small/toy (")
    assert last.endswith("make room, then the same command with --resume goes on")
    first, second = (StudyFolder(tmp_path / name / "small" / "toy") for name in ("first", "second"))
    before = {record.number: record for record in storage.read_records(first)}
    assert {record.state for record in before.values()} <= {"COMPLETE", "PRUNED", "RUNNING"}
    assert any(record.state == "RUNNING" for record in before.values()), "nothing was left to go on with"

    assert (tmp_path / "second.status").read_text() == "0\n", (tmp_path / "second.txt").read_text()
    after = {record.number: record for record in storage.read_records(second)}
    assert sorted(after) == list(range(6))
    assert {record.state for record in after.values()} <= {"COMPLETE", "PRUNED"}
    for number, record in before.items():
        assert after[number].architecture == record.architecture
        if record.state != "RUNNING":  # what had ended is not done again
            assert second.events(number).read_bytes() == first.events(number).read_bytes()
    complete = [number for number, record in after.items() if record.state == "COMPLETE"]
    assert all(replay(read_events(second.events(number))).finished for number in complete)
    assert second.front_html.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_database_on_a_full_disk_ends_a_study_in_one_line_and_it_goes_on_with_room(tmp_path, monkeypatch):
    database = "sqlite:///small/trials.db"
    monkeypatch.setenv("TOY_SECONDS", "0.3")
    more = ("--dense-epochs", "1", "--optuna-storage", database)
    run_on_small_disk(tmp_path, "1m", 6, *more, output="out", fill=FILL)
    said = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.status").read_text() == "2\n", said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        f"error: the study ended by itself: cannot read or write the trials in {database} (OperationalError: "
        "database or disk is full); make room there, then the same command with --resume goes on"
    )
    trials = {}
    for name in ("first", "second"):
        monkeypatch.chdir(tmp_path / name)
        folder = StudyFolder(Path("out/toy"))
        assert bool(read_ending(folder)) == (name == "first")
        records = storage.read_records(folder, database)
        trials[name] = {record.number: record for record in records}
    before, after = trials["first"], trials["second"]
    assert any(record.state == "RUNNING" for record in before.values()), "nothing was left to go on with"
    assert {record.state for record in before.values()} <= {"COMPLETE", "PRUNED", "RUNNING"}

    assert (tmp_path / "second.status").read_text() == "0\n", (tmp_path / "second.txt").read_text()
    assert sorted(after) == list(range(6))
    assert {record.state for record in after.values()} <= {"COMPLETE", "PRUNED"}
    for number, record in before.items():
        if record.state != "RUNNING":  # what had ended is not done again
            assert after[number].metrics == record.metrics
            assert after[number].ended_at == record.ended_at

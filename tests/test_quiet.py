"""Measurements of one device follow each other, whatever process they are made in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dirprune import quiet
from dirprune.errors import ConfigurationError

HOLDING = """
import time
from dirprune import quiet
quiet.IDLE_SHARE = 0.0
with quiet.device_to_itself("cpu"):
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_measurement_waits_for_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quiet, "IDLE_SHARE", 0.0)
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.1)
    with subprocess.Popen([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"
        with (
            pytest.raises(ConfigurationError, match="expected cpu for this measurement alone"),
            quiet.device_to_itself("cpu"),
        ):
            pytest.fail("two measure at once")
        assert "another measurement runs on cpu" in caplog.text
        other.kill()
    with quiet.device_to_itself("cpu"):
        pass


@pytest.mark.parametrize(("held", "other"), [("cuda", "cuda:0"), ("cuda:0", "cuda"), ("cpu", "cpu:0")])
def test_two_names_of_a_device_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str, other: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quiet, "IDLE_SHARE", 0.0)
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.1)
    with (
        quiet.device_to_itself(held),
        pytest.raises(ConfigurationError, match=f"expected {other} for this measurement alone"),
        quiet.device_to_itself(other),
    ):
        pytest.fail("two measure at once")


def test_two_gpus_are_measured_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.1)
    monkeypatch.setattr(quiet, "read_gpu_use", lambda index: None)
    with quiet.device_to_itself("cuda"), quiet.device_to_itself("cuda:1"):
        pass


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Let a GPU be there and a program say how busy it is."""
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{says}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(quiet, "SAMPLE_S", 0.01)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = SimpleNamespace(uuid="1b2c")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card if index == 1 else None)


def test_a_gpu_on_which_others_compute_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 87")
    with (
        pytest.raises(
            ConfigurationError, match=r"busy for 20% of the time at most, got 87% of GPU 1; end what"
        ),
        quiet.device_to_itself("cuda:1"),
    ):
        pytest.fail("measured beside others")
    assert "-i GPU-1b2c" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("says", ["echo 3", "echo '[N/A]'", "exit 9"])
def test_a_gpu_that_is_quiet_or_says_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, says)
    with quiet.device_to_itself("cuda:1"):
        pass


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux says what is idle")
def test_idle_cores_are_counted_and_a_busy_one_is_not_idle() -> None:
    idle = quiet.count_idle_cores(0.1)
    assert idle is not None
    assert idle >= 0
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as busy:
        time.sleep(0.2)
        cores = quiet.count_idle_cores(0.3)
        busy.kill()
    assert cores is not None
    assert cores < len(os.sched_getaffinity(0)) - 0.2

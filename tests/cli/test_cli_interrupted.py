"""Commands that are stopped: at once while they load, and else to go on where they were; by real signals."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dirprune.training_state import TrainingState

ROOT = Path(__file__).parents[2]
N_COALITIONS = 11 + 21 + 101 + 26  # each group of LeNet-5 whole, and without each of its channels
KEPT = "kept in output/scores: what was computed so far; the same command goes on from there"
PROGRAM = """
import os, time
from dirprune.cli import main
from dirprune.importance.coalitions.store import StoredValues

append = StoredValues._append

def append_slowly(self, keys, values):
    append(self, keys, values)
    time.sleep(float(os.environ["SECONDS_PER_BATCH"]))

StoredValues._append = append_slowly
main()
"""


def start(folder: Path, weights: Path, seconds: float) -> subprocess.Popen[str]:
    """Start `dirprune rank` with so many seconds for each batch of coalitions."""
    arguments = ["rank", "--weights", weights, "--method", "leave-one-out", "--device", "cpu"]
    return start_program(folder, arguments, SECONDS_PER_BATCH=str(seconds))


def start_program(
    folder: Path, arguments: list[object], program: str = PROGRAM, **variables: str
) -> subprocess.Popen[str]:
    """Start `dirprune`, with further environment variables."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SECONDS_PER_BATCH": "0", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """Let the command hear SIGINT also where the tests run in the background, in which it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "output/scores/coalitions").glob("*.jsonl")}


def read_coalitions(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Return every coalition whose value is in the files, as often as it is there."""
    found = []
    for name, content in files.items():
        for line in content[: content.rfind(b"\n") + 1].splitlines():
            record = json.loads(line)
            packed = base64.b64decode(record["coalitions"])
            width = len(packed) // len(record["values"])
            found += [(name, packed[start : start + width]) for start in range(0, len(packed), width)]
    return found


INTERRUPTED_AT_AN_IMPORT = """
import contextlib, os, runpy, signal, sys

at, *sys.argv = sys.argv[1:]

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            with contextlib.suppress(KeyboardInterrupt):  # as some library does
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
DOCTOR, STUDY = (
    ("dirprune/__main__.py", "doctor", "--network", "lenet5"),
    ("studies/lenet.py", "--data", "absent"),
)


@pytest.mark.parametrize(
    ("script", "module"),
    [
        pytest.param(DOCTOR, "click", marks=pytest.mark.slow),
        (DOCTOR, "torch"),
        pytest.param(DOCTOR, "numpy.linalg", marks=pytest.mark.slow),
        pytest.param(STUDY, "click", marks=pytest.mark.slow),
        pytest.param(STUDY, "torch", marks=pytest.mark.slow),
        pytest.param(STUDY, "numpy.linalg", marks=pytest.mark.slow),
        (STUDY, "optuna"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_ctrl_c_while_libraries_load_is_one_line(
    tmp_path: Path, script: tuple[str, ...], module: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_AN_IMPORT, module, str(ROOT / script[0]), *script[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=hear_ctrl_c,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_sent", "status", "said"),
    [
        (signal.SIGINT, 130, f"{KEPT}\ninterrupted\n"),
        (signal.SIGTERM, -signal.SIGTERM, ""),
    ],
)
def test_scoring_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, weights: Path, signal_sent: int, status: int, said: str
) -> None:
    first = start(tmp_path, weights, 0.5)
    deadline = time.monotonic() + 120
    while len(read_coalitions(read_files(tmp_path))) < 40:
        assert first.poll() is None, first.stderr.read()
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    first.send_signal(signal_sent)
    _, errors = first.communicate(timeout=60)
    assert (first.returncode, errors) == (status, said)
    before = read_files(tmp_path)
    assert 40 <= len(read_coalitions(before)) < N_COALITIONS
    assert not list((tmp_path / "output/scores").glob("*.safetensors"))

    second = start(tmp_path, weights, 0)
    output, errors = second.communicate(timeout=120)
    assert (second.returncode, errors) == (0, "")
    assert "leave-one-out: scores computed" in output
    after = read_files(tmp_path)
    assert all(after[name].startswith(content) for name, content in before.items())
    coalitions = read_coalitions(after)
    assert len(coalitions) == len(set(coalitions)) == N_COALITIONS


@pytest.mark.parametrize(
    ("command", "name", "result"),
    [
        pytest.param(
            "train --epochs 6 --seed 3 --output out.safetensors",
            "out.safetensors",
            "out.safetensors",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "prune --weights WEIGHTS --method magnitude --arch 8,9,36,17 --retrain --epochs 6 --recipe cifar "
            "--lr 0.001 --output out",
            "out",
            "out/model.safetensors",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_training_that_was_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, weights: Path, command: str, name: str, result: str
) -> None:
    arguments = [str(weights) if argument == "WEIGHTS" else argument for argument in command.split()]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    uninterrupted = start_program(whole, arguments)
    interrupted = start_program(cut, arguments)
    assert interrupted.stdout is not None
    for line in interrupted.stdout:
        if line.startswith("epoch "):
            break
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=300)
    assert interrupted.returncode == 130
    assert re.fullmatch(
        rf"kept in {name}-[0-9a-f]{{12}}\.state\.pt: "
        r"the training so far; the same command goes on\ninterrupted\n",
        errors,
    )
    assert not (cut / result).exists()

    output, errors = start_program(cut, arguments).communicate(timeout=300)
    assert f"going on from {name}-" in output
    assert "epoch 1/6 " not in output
    uninterrupted.communicate(timeout=300)
    assert load_file(cut / result).keys() == load_file(whole / result).keys()
    for path, tensor in load_file(cut / result).items():
        assert tensor.equal(load_file(whole / result)[path]), path
    assert not list(cut.glob("*.state.pt"))


KILLED = """
import os, signal
from dirprune import kept_training
from dirprune.cli import main
from dirprune.training_run import TrainingRun
from dirprune.training_state import TrainingState

n_steps, n_saved = 0, 0
take_step, save = TrainingRun._step_, TrainingState.save
kill_at, kill_in_save = (int(os.environ[name]) for name in ("KILL_AT", "KILL_IN_SAVE"))

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def count_step(run, *given):
    global n_steps
    loss = take_step(run, *given)
    n_steps += 1
    return kill() if n_steps == kill_at else loss

def save_whole(state, path):
    global n_saved
    n_saved += 1
    if n_saved == kill_in_save:
        type(path).replace = lambda *given: kill()  # written, but without its name
    save(state, path)

class Often:
    def __init__(self, seconds): self.restart()
    def restart(self): self.began = n_steps
    def is_over(self): return n_steps - self.began >= 4

TrainingRun._step_, TrainingState.save = count_step, save_whole
if kill_at or kill_in_save:
    kept_training.Interval = Often
main()
"""


@pytest.mark.slow
def test_training_that_was_killed_anywhere_ends_in_the_same_file(tmp_path: Path) -> None:
    """Between two checkpoints in the middle of an epoch, and while the next but one is being written."""
    command = "train --recipe cifar --epochs 2 --batch-size 64 --seed 3 --output out.safetensors"
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def start_in(folder: Path, kill_at: int = 0, kill_in_save: int = 0) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        variables = {"KILL_AT": str(kill_at), "KILL_IN_SAVE": str(kill_in_save)}
        return start_program(folder, [*command.split()], program=KILLED, **variables)

    uninterrupted = start_in(whole)
    n_seen = []
    for kill in ({"kill_at": 7}, {"kill_in_save": 3}):
        killed = start_in(cut, **kill)
        output, errors = killed.communicate(timeout=300)
        assert (killed.returncode, errors) == (-signal.SIGKILL, "")
        assert ("going on from " in output) is bool(n_seen)
        (path,) = cut.glob("out.safetensors-*.state.pt")
        state = TrainingState.load(path)
        assert state.segment["step"] > 0, "it stands in the middle of an epoch"
        n_seen.append(state.images)
    assert n_seen[0] < n_seen[1]
    output, errors = start_in(cut).communicate(timeout=300)
    assert "going on from " in output
    uninterrupted.communicate(timeout=300)
    assert read_weights(cut / "out.safetensors") == read_weights(whole / "out.safetensors")
    assert not list(cut.glob("out.safetensors-*.state.pt"))


def read_weights(path: Path) -> tuple[dict[str, object], bytes]:
    """Return a file's header, whose entries safetensors writes in any order, and all bytes behind it."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]

"""What a user can get wrong in a study: one line on stderr, exit status 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch

from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.files import write_json
from dirprune.networks import create_network
from dirprune.networks.weights import save_weights
from dirprune.recipe import Recipe
from dirprune.study.objectives import Objective
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tuning import run as tuning_run
from tests.integration.toy_study import spec as toy_spec

QUICK = {"trials": 1, "epochs": 0.1, "dense_epochs": 0.2, "fine_tuning": Recipe(images=0)}
COSTS = "macs:minimize,parameters:minimize"
LENET = StudySpec(name="lenet", network="lenet5", data="digits", **QUICK)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Run a study that must be refused; return its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, spec: StudySpec = LENET, leaves_nothing: bool = True) -> str:
        status = run_command(make_command(spec), list(map(str, arguments)), name="study")
        out, err = capsys.readouterr()
        assert status == 2, out + err
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        if leaves_nothing:
            assert not (tmp_path / "output").exists()
        return lines[0]

    return run


@pytest.fixture
def no_ray(monkeypatch):
    """Let a study stop where its trials would begin."""

    def stop(ledger, prepared, slots):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning_run, "_execute", stop)
    monkeypatch.setattr(tuning_run, "connect", lambda resources: open("/dev/null"))  # noqa: SIM115, PTH123


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_data_folder_that_is_missing_or_empty(refused, tmp_path, dataset):
    line = refused("--dataset", dataset, "--data", tmp_path / "nowhere")
    assert "expected a folder with the data set" in line
    assert "nowhere" in line
    (tmp_path / "empty").mkdir()
    line = refused("--dataset", dataset, "--data", tmp_path / "empty")
    assert "found no" in line


def test_weights_of_another_network(refused, tmp_path):
    save_weights(torch.nn.Linear(3, 4), tmp_path / "other.safetensors")
    line = refused("--weights", tmp_path / "other.safetensors")
    assert "expected weights of LeNet5, got those of another network" in line


def test_weights_of_other_widths(refused, tmp_path):
    save_weights(create_network("lenet5", {"widths": (5, 5, 5, 5)}), tmp_path / "narrow.safetensors")
    assert "is it of other widths?" in refused("--weights", tmp_path / "narrow.safetensors")


def test_pickle_that_runs_code_does_not_run(refused, tmp_path):
    torch.save({"state_dict": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pt")
    assert "that could run code" in refused("--weights", tmp_path / "hostile.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "magnitud"], "unknown importance method 'magnitud'; did you mean 'magnitude'?"),
        (["--trails", "3"], "did you mean '--trials'?"),
        (["--max-macs", "10"], "498,750 in this space, got a limit of 10"),
        (["--max-macs", "1000"], "a smaller share of each group than 0.1 (--min-keep-ratio)"),
        (["--min-keep-ratio", "1.5"], "keep ratio must be in (0, 1], got 1.5"),
        (["--sampler", "tpee"], "unknown 'tpee'; did you mean 'tpe'?"),
        (
            ["--final-epochs", "3"],
            "expected --finalists N beside it, got --final-epochs 3 alone; add",
        ),
        (["--final-seeds", "2"], "expected --finalists N beside it, got --final-seeds 2 alone; add"),
        (["--patience-share", "0.1"], "expected --patience N beside it, got --patience-share 0.1 alone; add"),
        (["--max-parameters", "none"], "'none'"),
        (
            ["--max-parameters", "100"],
            "parameters can be from 487 to 40,225 in this space, got a limit of 100;",
        ),
        (["--min-val-accuracy", "93"], "got '93'; 93% is 0.93; try 0.95, or dense-0.02"),
        (["--objectives", "val_accuracy"], "expected metric:direction, got 'val_accuracy'; try"),
        (["--objectives", "flops:minimize"], "unknown objective 'flops'; known: latency_ms, macs,"),
        (
            ["--objectives", "macs:minimize", "--min-val-accuracy", "0.9"],
            "expected val_accuracy:maximize among the objectives, of which the study asks for at least 0.9,",
        ),
        (
            ["--objectives", f"val_accuracy:maximize,val_loss:minimize,val_error:minimize,{COSTS}"],
            "objective val_loss has no default reference value",
        ),
        (
            ["--objectives", f"val_accuracy:maximize,{COSTS},{COSTS}"],
            "each objective may be given once, got val_accuracy, macs, parameters, macs, parameters",
        ),
        (["--reduction-factor", "1.5"], "reduction factor must be at least 2 and finite, got 1.5;"),
        (["--rungs", "2,1"], "rungs must be increasing, finite epochs from 0, got (2.0, 1.0); try"),
        (["--architectures", "budget"], "'budget'"),
        (["--channel-multiple", "0"], "at least 1, got '0'"),
        (["--channel-multiple", "256"], "; try a smaller channel multiple than 256 (--channel-multiple)"),
        (["--trials", "0"], "trials must be at least 1, got 0"),
        (["--trials", "many"], "'many' is not a valid integer"),
        (["--epochs", "-1"], "epochs must be above 0 and finite, got -1"),
        (
            ["--reference-point", "val_accuracy=93"],
            "accuracy is a fraction in [0, 1], got val_accuracy=93; 93% is 0.93",
        ),
        (["--reference-point", "val_accuracy=1"], "reference value of val_accuracy must be below 1"),
        (["--reference-point", "macs=10"], "which the smallest network of the space has, got 10;"),
        (["--patience", "0"], "expected a whole number of at least 1, got '0'"),
        (["--patience-share", "-1"], "expected a number above 0"),
        (["--time-limit", "soon"], "got 'soon'; try 90, 15m or 2h"),
        (["--reference-point", "accuracy=0.9"], "did you mean 'val_accuracy'?"),
        (["--dataset", "mnits"], "did you mean 'mnist'?"),
        (["--validation-from", "half"], "expected validation_from train:F or test:F"),
        (["--name", "../elsewhere"], "one plain folder name"),
        (["--cpus-per-trial", "0"], "expected a number above 0"),
        (["--train-images", "5"], "expected every one of the 10 classes"),
        (["--cpus-per-trial", "999"], "one trial needs CPU=999,GPU=0, the cluster has CPU="),
        (["--gpus-per-trial", "99"], "GPU=99, 99 workers with a part each, the cluster has CPU=2,GPU=0;"),
        (["--resources-per-trial", "A100"], "as name=amount, got 'A100'; for example CPU=2,"),
        (["--resources-per-trial", "CPU=1,CPU=2"], "each resource once as name=amount, got 'CPU=2'"),
        (["--resources-per-trial", "memory=4TB"], "got 'memory=4TB'"),
        (["--resources-per-trial", "CPU=0"], "CPUs per trial must be above 0"),
        (["--resources-per-trial", "A100=1.5"], "a whole number of A100, or less than one, got 1.5"),
        (
            ["--resources-per-trial", "A100=1"],
            "needs CPU=1,GPU=0,A100=1, the cluster has CPU=2,GPU=0,A100=0;",
        ),
        (["--resources-per-trial", "CPU=2", "--cpus-per-trial", "2"], "expected CPU once, got CPU=2 and"),
        (["--ray-address", "127.0.0.1:9"], "nothing answers there"),
        (["--ray-address", "ray://127.0.0.1:9"], "try --ray-address local"),
    ],
)
def test_option_that_cannot_work(refused, arguments, expected):
    assert expected in refused(*arguments)


def test_evaluation_that_gives_percent(refused):
    def percent(outputs, targets):
        return {"accuracy": 100 * float((outputs.argmax(1) == targets).float().mean()) + 50}

    assert "a percentage is divided by 100" in refused(spec=replace(LENET, evaluation=percent))


def test_least_accuracy_that_no_network_exceeds(refused, tmp_path, no_ray):
    def perfect(outputs, targets):
        return {"accuracy": 1.0}

    line = refused("--min-val-accuracy", "1", "--patience", "5")
    assert "expected a least accuracy below 1, which no network exceeds, got 1; nothing could count" in line
    given = ["--min-val-accuracy", "dense-0", "--no-tracking", "--output", tmp_path / "out"]
    line = refused(*given, spec=replace(LENET, evaluation=perfect))
    assert "expected a least accuracy below 1, which no network exceeds, got 1 (dense-0); nothing" in line
    assert not (tmp_path / "out" / "lenet" / "study.json").exists()


def test_objective_that_the_evaluation_does_not_give(refused):
    objectives = (Objective("val_acuracy", "maximize"), Objective("macs", "minimize"))
    spec = replace(LENET, objectives=objectives, reference_point={"val_acuracy": 0.1})
    assert "did you mean 'val_accuracy'?" in refused(spec=spec)


def test_objective_without_a_reference_value(refused):
    line = refused(spec=replace(toy_spec, reference_point=None))
    assert "objective val_mae has no default reference value" in line


def test_network_of_which_nothing_can_be_cut(refused):
    spec = replace(toy_spec, network=lambda: torch.nn.Linear(6, 2))
    assert "channel groups that can be cut, got none (only its output)" in refused(spec=spec)
    spec = replace(LENET, network_options={"widths": (1, 1, 1, 1)})
    assert "got none (conv1: it has a single channel; conv2: " in refused(spec=spec)


def test_output_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("--output", tmp_path / "file" / "output")
    assert "expected an output folder that can be written" in line


def test_tracking_server_that_is_not_there_is_said_within_seconds(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = time.monotonic()
    line = refused("--tracking-uri", f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 20
    assert "no MLflow server answers" in line
    assert "--no-tracking" in line


def test_no_tracking_goes_on_without_a_server(tmp_path, no_ray, capsys):
    arguments = ["--tracking-uri", "http://127.0.0.1:9", "--no-tracking", "--output", str(tmp_path)]
    assert run_command(make_command(LENET), arguments, name="study") == 130
    assert (tmp_path / "lenet" / "study.json").exists()


def test_unknown_sampler(refused):
    said = refused("--sampler", "nsga")
    assert "unknown 'nsga'; did you mean 'nsga3'? known: auto, ehvi" in said


def test_study_goes_on_with_another_sampler(tmp_path, no_ray, monkeypatch, capsys):
    output = ["--output", str(tmp_path / "out"), "--no-tracking"]
    made = []
    monkeypatch.setattr(
        tuning_run, "_execute", lambda ledger, prepared, slots: made.append(ledger.study.sampler)
    )
    assert run_command(make_command(LENET), [*output, "--sampler", "random"], name="study") == 0
    assert run_command(make_command(LENET), [*output, "--resume", "--sampler", "nsga2"], name="study") == 0
    assert isinstance(made[0], optuna.samplers.RandomSampler)
    assert isinstance(made[1].base, optuna.samplers.NSGAIISampler)
    assert "sampler nsga2, as chosen" in capsys.readouterr().out


def test_sigterm_between_two_stages_ends_as_ctrl_c_does(tmp_path, no_ray, monkeypatch, capsys):
    monkeypatch.setattr(tuning_run, "_execute", lambda ledger, prepared, slots: "")
    monkeypatch.setattr(tuning_run, "run_finalists", lambda *given: os.kill(os.getpid(), signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    arguments = ["--output", str(tmp_path), "--no-tracking"]
    assert run_command(make_command(LENET), arguments, name="study") == 130
    said = capsys.readouterr().err
    assert said.endswith("what was finished is kept; the same command with --resume goes on\ninterrupted\n")
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_study_may_ask_for_no_least_accuracy_where_its_script_does(tmp_path, no_ray, capsys):
    study = make_command(replace(LENET, min_val_accuracy="dense-0.05"))
    objective = ["--objectives", "macs:minimize", "--output", str(tmp_path), "--no-tracking"]
    assert run_command(study, objective, name="study") == 2
    assert "(--min-val-accuracy none)" in capsys.readouterr().err
    assert run_command(study, [*objective, "--min-val-accuracy", "none"], name="study") == 130


def test_study_that_ended_before_any_trial_names_no_file_that_is_not_there(tmp_path, no_ray, capsys):
    arguments = ["--output", str(tmp_path), "--no-tracking"]
    assert run_command(make_command(LENET), arguments, name="study") == 130
    said = capsys.readouterr().out
    named = [part for part in said.replace(",", " ").split() if part.startswith(f"{tmp_path}/")]
    assert [part for part in named if not Path(part.replace("/<trial>", "")).exists()] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rungs", "0,0.1,5"], "rungs 0.1 and 5; try --rungs 0"),
        (["--rungs", "2"], "rung 2; try --rungs 0"),
        (["--rungs", "0,0.05"], ""),
        (["--rungs", "0,0.05,1"], "rung 1; try --rungs 0,0.05"),
        (["--rungs", "0,5", "--halving", "none"], ""),
    ],
)
def test_rung_that_no_trial_comes_to_is_warned_of(tmp_path, no_ray, capsys, arguments, expected):
    arguments = [*arguments, "--output", str(tmp_path), "--no-tracking"]
    assert run_command(make_command(LENET), arguments, name="study") == 130
    warnings = [line for line in capsys.readouterr().out.splitlines() if "compared" in line]
    said = f"warning: with --epochs 0.1 trials end before they are compared at {expected}"
    assert warnings == ([said] if expected else [])


def test_existing_study_is_not_taken_for_another(refused, tmp_path, no_ray, capsys):
    output = ["--output", str(tmp_path / "out"), "--no-tracking"]
    assert run_command(make_command(LENET), output, name="study") == 130
    stored = (tmp_path / "out" / "lenet" / "study.json").read_text()
    capsys.readouterr()
    assert "weights" in refused(*output, "--weights", tmp_path / "nowhere.safetensors")
    assert "data set" in refused(*output, "--dataset", "mnist", "--data", tmp_path / "nowhere")
    line = refused(*output)
    assert "exists in" in line
    assert "--resume" in line
    other = (Objective("val_accuracy", "maximize"), Objective("parameters", "minimize"))
    line = refused(*output, "--resume", spec=replace(LENET, objectives=other))
    assert "study lenet has objectives [['val_accuracy', 'maximize'], ['macs', 'minimize']]" in line
    line = refused(*output, "--resume", spec=replace(LENET, network_options={"widths": (4, 6, 20, 10)}))
    assert "study lenet has groups" in line
    assert "network" in line
    line = refused(*output, "--resume", "--seed", "5")
    assert "seed" in line
    line = refused(*output, "--resume", spec=replace(LENET, rungs=(0.0, 0.05)))
    assert "study lenet has rungs [0.0, 1.0], got [0.0, 0.05]" in line
    line = refused(*output, "--resume", spec=replace(LENET, space=SearchSpace(min_keep_ratio=0.5)))
    assert "study lenet has space.min_keep_ratio 0.1, got 0.5" in line
    line = refused(*output, "--resume", spec=replace(LENET, space=SearchSpace(methods={"taylor": {}})))
    assert "study lenet has space.methods {'dirichlet': " in line
    assert "got {'taylor': {}}" in line
    line = refused(*output, "--resume", spec=replace(LENET, fine_tuning=Recipe(images=0, batch_size=7)))
    assert "study lenet has fine_tuning" in line
    finalists = tmp_path / "out" / "lenet" / "finalists"
    finalists.mkdir()
    write_json(finalists / "finalists.json", {"epochs": 7.0}, 1)
    more = ("--trials", "50", "--finalists", "1", "--final-epochs", "9")
    line = refused(*output, "--resume", *more)
    assert "trained for 7 epochs, got 9; give --final-epochs 7" in line
    line = refused(*output, "--resume", "--optuna-storage", "sqlite:///other.db")
    assert "are kept in journal, got sqlite:///other.db" in line
    assert len(list((tmp_path / "out" / "dense").iterdir())) == 1, "no other dense network was trained"
    assert (tmp_path / "out" / "lenet" / "study.json").read_text() == stored
    assert json.loads(stored)["schema"] == 1


@pytest.mark.slow
def test_mistake_shows_no_traceback_in_a_process_of_its_own(tmp_path):
    import subprocess

    script = Path(__file__).parents[2] / "studies" / "lenet.py"
    done = subprocess.run(
        [sys.executable, script, "--trials", "0"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "error: trials must be at least 1, got 0; try --trials 40\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--data", "memory://nowhere", "--dataset", "folders:32"),
            "found nothing there; check the spelling",
        ),
        (("--data", "s4://shop/x", "--dataset", "stream"), "unknown kind of place s4://"),
        (("--data", "memory://shop", "--dataset", "mnist"), "try --dataset folders"),
        (("--dataset", "stream:32"), "give --data DIR"),
    ],
)
def test_images_that_are_not_where_they_should_be(refused, arguments, said):
    assert said in refused(*arguments)

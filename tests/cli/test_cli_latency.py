"""`dirprune latency` and `dirprune fit-latency`: what they measure, write and refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from dirprune import latency as measuring
from dirprune import quiet, turns
from dirprune.architecture import Architecture
from dirprune.cli import latency as command
from dirprune.cost import CostModel
from dirprune.data import load_data
from dirprune.errors import ConfigurationError
from dirprune.files import write_json
from dirprune.networks import create_network
from dirprune.records.finalists import FinalTraining, summarise_finalists, write_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.known_latencies import LatencyCache
from dirprune.records.models import save_model
from dirprune.records.tables import load_front, write_front
from dirprune.records.views import write_tables
from dirprune.study import latency as study_latency
from dirprune.study.objectives import Objective
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from dirprune.tuning.storage import STUDY_SCHEMA
from tests.integration import toy_study
from tests.records.example_study import make_trial

OBJECTIVES = [Objective("val_accuracy", "maximize"), Objective("macs", "minimize")]
SHAPE = (1, 28, 28)
pytestmark = pytest.mark.usefixtures("on_a_busy_device")


def make_front(root, *, final_accuracies=()) -> StudyFolder:
    """Store two networks of LeNet-5 as the front of a study: trial 1 keeps little, trial 2 most.

    Where final accuracies are given, both are finalists of one seed as well, with these.
    """
    folder = StudyFolder(root / "lenet")
    network, example = create_network("lenet5").eval(), torch.zeros(2, *SHAPE)
    grouping = find_groups(network, example)
    costs = CostModel(network, grouping, example)
    records = []
    for number, ratio, accuracy in ((1, 0.1, 0.9), (2, 0.9, 0.95)):
        architecture = Architecture.uniform(grouping, ratio)
        kept = {name: list(range(n)) for name, n in architecture.items()}
        known = {"val_accuracy": accuracy, **costs.costs(architecture).as_dict()}
        for model_dir in (folder.model_dir(number), folder.finalist(number, 0).model_dir(number)):
            save_model(
                model_dir,
                compact(network, grouping, kept, example),
                architecture=architecture,
                kept=kept,
                base={"name": "lenet5", "options": {}},
                input_shape=SHAPE,
                normalisation={"mean": [0.0], "std": [1.0]},
                metrics=known,
            )
        records.append(make_trial(number, "sampler", ratio, accuracy, metrics=known).on_front(True))
    write_front(folder.front_csv, records, OBJECTIVES)
    if final_accuracies:
        trainings = [
            FinalTraining(replace(record, metrics=record.metrics | {"val_accuracy": accuracy}), 0)
            for record, accuracy in zip(records, final_accuracies, strict=True)
        ]
        finalists = summarise_finalists(trainings, OBJECTIVES)
        write_finalists(folder.finalists_csv, finalists)
        write_finalists(folder.final_front_csv, [f for f in finalists if f.record.is_front])
    description = {"objectives": [[o.metric, o.direction] for o in OBJECTIVES]}
    write_json(folder.study_json, {"description": description}, STUDY_SCHEMA)
    return folder


def obtain(options, network, grouping, roles, *, stored=None, say=lambda line: None):
    """Return the latencies of a study that has them already."""

    def measure(*given):
        raise AssertionError("they are there already")

    return study_latency.obtain_latency(options, stored, network, grouping, roles, say, measure)


def test_the_networks_of_a_front_are_timed_beside_the_dense_one(run, tmp_path):
    folder = make_front(tmp_path)
    result = run("latency", folder.root, "--batch-size", 64, "--runs", 20)
    assert result.status == 0, result.errors
    rows = read_rows(folder.latency_csv)
    assert [row["trial"] for row in rows] == ["dense", "1", "2"]
    for row in rows:
        assert 0 < float(row["low_ms"]) <= float(row["latency_ms"]) <= float(row["high_ms"])
    assert rows[0]["macs"] == "498750"
    assert float(rows[0]["speed_up"]) == 1
    speed_up = float(rows[0]["latency_ms"]) / float(rows[1]["latency_ms"])
    assert float(rows[1]["speed_up"]) == pytest.approx(speed_up, abs=0.01)
    assert "batches of 64 in float32 on cpu" in result.output
    dense = next(line for line in result.output.splitlines() if line.startswith("dense"))
    assert dense.split()[1:3] == ["498,750", "40,225"]
    assert folder.latency_png.read_bytes().startswith(b"\x89PNG")
    front = read_rows(folder.front_csv)
    assert [row["measured_ms"] for row in front] == [row["latency_ms"] for row in rows[1:]]
    assert [row["measured_high_ms"] for row in front] == [row["high_ms"] for row in rows[1:]]
    assert [row["measured_speed_up"] for row in front] == [row["speed_up"] for row in rows[1:]]
    write_tables(folder, [], OBJECTIVES)
    head = folder.front_csv.read_text().strip()
    assert head.endswith("measured_ms,measured_low_ms,measured_high_ms,measured_speed_up,measured_on")


def test_tables_of_latencies_say_what_was_measured_where(run, tmp_path):
    folder = make_front(tmp_path)
    for batch_size in (1, 64):
        run("latency", folder.root, "--runs", 5, "--batch-size", batch_size, "--device", "cpu")
        for row in read_rows(folder.latency_csv):
            assert (row["batch_size"], row["threads"]) == (str(batch_size), "1")
            assert (row["device"], row["processor"]) == ("cpu", measuring.name_processor())
            assert (row["precision"], row["torch"]) == ("float32", torch.__version__)
        for row in read_rows(folder.front_csv):
            assert row["measured_on"].startswith(f"batches of {batch_size} in float32 on cpu (")
            assert ", threads: 1, torch" in row["measured_on"]
    first, _ = load_front(folder)
    assert first.measured_on.startswith("batches of 64")
    assert "measured_on" not in first.metrics
    stored = json.loads(folder.latencies_json.read_text())["latencies"].values()
    assert [each["setting"]["batch_size"] for each in stored] == [1, 1, 1, 64, 64, 64]
    assert {each["setting"]["device"] for each in stored} == {"cpu"}
    assert [] in [each["architecture"] for each in stored]


def test_the_final_front_is_timed_too_and_judged_by_its_own_metrics(run, tmp_path, monkeypatch):
    clock = [measuring.Latency(ms, ms, ms) for ms in (9.0, 1.0, 5.0)]  # dense, trial 1, trial 2: once each
    monkeypatch.setattr(command, "measure_in_turns", lambda networks, *_: [clock.pop(0) for _ in networks])
    folder = make_front(tmp_path, final_accuracies=(0.96, 0.97))
    result = run("latency", folder.root)
    assert result.status == 0, result.errors
    rows = read_rows(folder.latency_csv)
    assert [(row["trial"], row["front"], row["val_accuracy"]) for row in rows] == [
        ("dense", "", ""),
        ("1", "search", "0.9000"),
        ("2", "search", "0.9500"),
        ("1", "final", "0.9600"),
        ("2", "final", "0.9700"),
    ]
    assert not any(row["beaten_by"] for row in rows), "a long training beats no short one"
    for table in (folder.front_csv, folder.final_front_csv, folder.finalists_csv):
        assert [row["measured_ms"] for row in read_rows(table)] == ["1", "5"], table.name
    assert str(folder.final_front_csv) in result.output
    first, _ = load_front(folder, final=True)
    assert (first.metrics["measured_ms"], first.metrics["measured_high_ms"]) == (1, 1)


def read_rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_is_measured_on_a_device_without_idle_cores(run, tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "IDLE_SHARE", 1e6)
    monkeypatch.setattr(quiet, "SAMPLE_S", 0.01)
    folder = make_front(tmp_path)
    result = run("latency", folder.root)
    assert result.status == 2
    assert "expected a quiet device with 1e+06 idle cores or more for 1 threads" in result.errors
    assert len(result.errors.strip().splitlines()) == 1
    assert not folder.latency_csv.exists()


def test_what_was_measured_under_the_same_setting_is_not_measured_again(run, tmp_path):
    folder = make_front(tmp_path)
    run("latency", folder.root, "--runs", 5)
    first = folder.latency_csv.read_text()
    again = run("latency", folder.root, "--runs", 5)
    assert "3 of 3 were measured before" in again.output
    assert folder.latency_csv.read_text() == first
    assert "measured before" not in run("latency", folder.root, "--runs", 5, "--batch-size", 2).output
    assert "3 of 3 were measured before" in run("latency", folder.root, "--runs", 5).output


def test_what_was_measured_one_network_after_the_other_is_measured_again(run, tmp_path):
    folder = make_front(tmp_path)
    with study_latency.threads_set_to(1):
        setting = measuring.describe_setting(torch.zeros(1, *SHAPE))
    cache = LatencyCache(folder.latencies_json, {**setting, "passes": 5})
    cache.add({(): measuring.Latency(1e6, 1e6, 1e6)})
    result = run("latency", folder.root, "--runs", 5, "--device", "cpu")
    assert (result.status, "measured before" in result.output) == (0, False)
    assert float(read_rows(folder.latency_csv)[0]["latency_ms"]) < 1e6


def test_a_device_that_gets_faster_meanwhile_lets_no_network_beat_another(run, tmp_path, monkeypatch):
    passes = iter(range(10**6))
    monkeypatch.setattr(turns, "time_pass", lambda *_: 10 - 1.5 * next(passes) / (3 * 62))
    folder = make_front(tmp_path, final_accuracies=(0.96, 0.96))
    result = run("latency", folder.root)
    assert result.status == 0, result.errors
    assert 3 * 61 < next(passes) <= 3 * 62, "ten more passes of each network than count, and two at first"
    rows = read_rows(folder.latency_csv)
    assert not any(row["beaten_by"] for row in rows if row["front"] == "final")
    front = read_rows(folder.front_csv)
    for row, other in (front, front[::-1]):
        assert float(row["measured_low_ms"]) < float(other["measured_ms"]) < float(row["measured_high_ms"])
    assert "median of 50 passes in 10 rounds, and quartiles" in result.output


def test_a_network_that_comes_to_the_front_is_timed_beside_the_dense_one(run, tmp_path, monkeypatch):
    folder = make_front(tmp_path)
    whole = folder.front_csv.read_text()
    timed, pace = [], [1.0]

    def measure(networks, *_):
        taken = [pace[0] * sum(each.numel() for each in network.parameters()) / 1e4 for network in networks]
        timed.append(len(networks))
        return [measuring.Latency(ms, 0.95 * ms, 1.05 * ms) for ms in taken]

    def find(new_pace):
        folder.front_csv.write_text(whole.splitlines()[0] + "\n" + whole.splitlines()[1] + "\n")
        folder.latencies_json.unlink(missing_ok=True)
        pace[0] = 1.0
        run("latency", folder.root)
        folder.front_csv.write_text(whole)
        pace[0] = new_pace
        return run("latency", folder.root)

    monkeypatch.setattr(command, "measure_in_turns", measure)
    beside = find(1.08)
    assert timed == [2, 2]
    assert (
        "2 of 3 were measured before; the dense network, timed again beside the others, takes 8.0% longer "
        in (beside.output)
    )
    last = read_rows(folder.latency_csv)[2]
    now, low, high = (float(last[name]) for name in ("latency_ms", "low_ms", "high_ms"))
    assert (low / now, high / now) == (pytest.approx(0.95 / 1.08, rel=1e-3), pytest.approx(1.05, rel=1e-3))
    timed.clear()
    anew = find(0.8)
    assert timed == [2, 2, 3]
    assert "takes 20.0% less than when some were measured before" in anew.output
    assert "all were measured again" in anew.output
    dense = read_rows(folder.latency_csv)[0]
    assert float(dense["latency_ms"]) == pytest.approx(0.8 * 40225 / 1e4, rel=1e-3)
    assert "3 of 3 were measured before; without" in run("latency", folder.root).output


def test_networks_are_timed_in_the_precision_of_their_deployment(run, tmp_path):
    folder = make_front(tmp_path)
    run("latency", folder.root, "--runs", 5, "--device", "cpu")
    given = ("--runs", 5, "--device", "cpu", "--precision", "bfloat16")
    result = run("latency", folder.root, *given)
    assert result.status == 0, result.errors
    assert "batches of 1 in bfloat16 on cpu" in result.output
    assert {row["precision"] for row in read_rows(folder.latency_csv)} == {"bfloat16"}
    assert {row["measured_on"].split(" on ")[0] for row in read_rows(folder.front_csv)} == {
        "batches of 1 in bfloat16"
    }
    stored = json.loads(folder.latencies_json.read_text())["latencies"].values()
    assert [each["setting"]["precision"] for each in stored] == ["float32"] * 3 + ["bfloat16"] * 3
    path = tmp_path / "latency.json"
    fitted = ("--network", "lenet5", "--input-shape", "1,28,28", "--architectures", 10, "--output", path)
    result = run("fit-latency", *fitted, "--precision", "bfloat16")
    assert result.status == 0, result.errors
    assert study_latency.read_latency(path).setting["precision"] == "bfloat16"


def test_a_network_that_cannot_compute_in_a_precision_is_refused(run, tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Scaled(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))\n"
        "    def forward(self, inputs):\n"
        "        return super().forward(torch.fft.rfft(inputs, n=10).real)\n"
    )
    path = tmp_path / "latency.json"
    given = ("--network", f"{tmp_path / 'own.py'}:Scaled", "--input-shape", "6", "--output", path)
    result = run("fit-latency", *given, "--precision", "float16", "--device", "cpu")
    assert (result.status, len(result.errors.strip().splitlines())) == (2, 1)
    assert "expected a network that computes in float16 on cpu, got " in result.errors
    assert "try --precision float32" in result.errors
    assert not path.exists()


def test_a_folder_without_a_front_and_an_unknown_device_are_refused(run, tmp_path):
    result = run("latency", tmp_path)
    assert result.status == 2
    assert "expected a study with front.csv" in result.errors
    result = run("latency", make_front(tmp_path).root, "--device", "tpu")
    assert result.status == 2
    assert "expected a device of this machine, got tpu; try cpu" in result.errors


def test_a_network_of_a_user_is_never_made_from_what_a_file_names(run, tmp_path):
    folder = make_front(tmp_path)
    path = folder.model_dir(1) / "architecture.json"
    path.write_text(path.read_text().replace('"name": "lenet5"', '"module": "os", "name": "abort"'))
    result = run("latency", folder.root)
    assert result.status == 2
    assert "code that a file names is never run" in result.errors


def test_the_front_of_ones_own_network_is_timed_with_the_function_that_made_it(run, own):
    records = [make_trial(1, "sampler", 0.5, 0.98, metrics={"macs": 5.0, "parameters": 9.0}).on_front(True)]
    write_front(own.front_csv, records, OBJECTIVES)
    without = run("latency", own.root)
    assert (without.status, without.errors.count("\n")) == (2, 1)
    assert "the network of study lenet is your own; try again with --network FILE.py:Toy" in without.errors
    assert not own.latency_csv.exists()
    result = run("latency", own.root, "--runs", 5, "--network", f"{toy_study.__file__}:Toy")
    assert (result.status, result.errors) == (0, "")
    rows = read_rows(own.latency_csv)
    assert [row["trial"] for row in rows] == ["dense", "1"]
    assert rows[0]["macs"] == str(6 * toy_study.WIDTH + toy_study.WIDTH**2 + toy_study.WIDTH * 2)
    assert all(float(row["latency_ms"]) > 0 for row in rows)


def test_a_study_takes_the_latencies_that_were_measured_elsewhere(run, tmp_path):
    path = tmp_path / "latency.json"
    given = ("--network", "lenet5", "--input-shape", "1,28,28", "--architectures", 10)
    result = run("fit-latency", *given, "--output", path)
    assert result.status == 0, result.errors
    assert f"--latency {path}" in result.output
    network, example = create_network("lenet5").eval(), torch.zeros(2, *SHAPE)
    grouping = find_groups(network, example)
    said = []
    options = study_latency.LatencyOptions(path)
    roles = load_data("digits", None, validation_from="test:0.5")
    model = obtain(options, network, grouping, roles, say=said.append)
    costs = CostModel(network, grouping, example).with_latency(model.constant_ms, model.rates_ms)
    assert costs.costs(grouping.n_channels).as_dict()["latency_ms"] > 0
    assert "modelled, within" in said[0]
    other = create_network("lenet5", {"widths": (10, 20, 100, 24)}).eval()
    with pytest.raises(ConfigurationError, match=r"this network, whose dense_macs is .* with 498750"):
        obtain(options, other, find_groups(other, example), roles)


def test_latencies_of_a_network_of_ones_own_suit_its_study(run, tmp_path, monkeypatch):
    def count(network, inputs):
        return 0.1 + 1e-3 * sum(each.numel() for each in network.parameters())

    monkeypatch.setattr(measuring, "time_pass", count)
    path = tmp_path / "latency.json"
    place = f"{toy_study.__file__}:Toy"
    given = ("--network", place, "--input-shape", 6, "--architectures", 10, "--batch-size", 4)
    result = run("fit-latency", *given, "--output", path)
    assert result.status == 0, result.errors
    network = toy_study.Toy().eval()
    roles = toy_study.toy_data(None, validation_from="test:0.5", seed=0)
    grouping = find_groups(network, roles.example_input())
    model = obtain(study_latency.LatencyOptions(path), network, grouping, roles)
    assert model.setting["dense_macs"] == 6 * toy_study.WIDTH + toy_study.WIDTH**2 + toy_study.WIDTH * 2


def test_latencies_of_batches_of_another_size_than_was_asked_for_are_refused(tmp_path):
    path = tmp_path / "latency.json"
    model = measuring.LatencyModel(1.0, (1e-6,), 0.1, measuring.describe_setting(torch.zeros(4, *SHAPE)))
    study_latency.write_latency(path, model)
    network = create_network("lenet5").eval()
    roles = load_data("digits", None, validation_from="test:0.5")
    grouping = find_groups(network, roles.example_input())
    for place, stored, advice in (
        (path, None, r"in .*latency\.json; leave --latency-batch out, or measure those with dirprune fit-l"),
        (None, model.to_json(), "in this study, .*; leave --latency-batch out, or choose another --name"),
    ):
        for asked in (None, 4):
            options = study_latency.LatencyOptions(place, asked, threads=7)
            assert obtain(options, network, grouping, roles, stored=stored) == model
        options = study_latency.LatencyOptions(place, 1)
        with pytest.raises(ConfigurationError, match=f"batches of 1, got those of batches of 4 {advice}"):
            obtain(options, network, grouping, roles, stored=stored)


def test_latencies_are_of_a_network_with_as_many_outputs_as_the_data_have_classes(run, tmp_path):
    path = tmp_path / "latency.json"
    given = ("--network", "lenet5", "--input-shape", "1,28,28", "--architectures", 10, "--classes", 3)
    assert run("fit-latency", *given, "--output", path).status == 0
    network = create_network("lenet5", {"n_classes": 3}).eval()
    roles = load_data("digits", None, validation_from="test:0.5")
    grouping = find_groups(network, torch.zeros(2, *SHAPE))
    options = study_latency.LatencyOptions(path)
    assert obtain(options, network, grouping, roles) is not None


def test_latencies_that_the_model_does_not_explain_are_refused(monkeypatch):
    monkeypatch.setattr(study_latency, "MAX_ERROR", 0.25)
    model = measuring.LatencyModel(1.0, (1e-6,), 0.4, {})
    with pytest.raises(ConfigurationError, match=r"within 25% of the model .* got 40%; is the device busy"):
        study_latency.check_latency(model)


def test_a_network_whose_latency_does_not_fall_with_its_widths_is_refused():
    model = measuring.LatencyModel(0.02, (0.0, 0.0), 0.01, {})
    with pytest.raises(ConfigurationError, match=r"0\.02 ms for every architecture.*take a larger batch"):
        study_latency.check_latency(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--network", "lenet", "--input-shape", "1,28,28"), "did you mean 'lenet5'"),
        (("--network", "lenet5", "--input-shape", "1,x"), "expected whole numbers above 0, got '1,x'"),
        (("--network", "lenet5", "--input-shape", "3,28,28"), "3, 28, 28"),
        (
            ("--network", f"{toy_study.__file__}:Toy", "--input-shape", "6", "--classes", "4"),
            "--classes is of networks by name",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(run, tmp_path, arguments, message):
    result = run("fit-latency", *arguments, "--output", tmp_path / "latency.json")
    assert result.status == 2
    assert message in result.errors
    assert len(result.errors.strip().splitlines()) == 1
    assert not (tmp_path / "latency.json").exists()


def test_a_model_of_latencies_is_not_written_into_a_study(run, tmp_path):
    (tmp_path / "lenet").mkdir()
    study = tmp_path / "lenet" / "study.json"
    study.write_text("{}")
    given = ["--network", "lenet5", "--input-shape", "1,28,28"]
    result = run("fit-latency", *given, "--output", study)
    assert result.status == 2
    assert "expected --output outside of every study's folder" in result.errors
    assert study.read_text() == "{}"

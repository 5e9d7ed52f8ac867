"""The declaration of a study: what it refuses, its reference point, and what must not change on resume."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective
from dirprune.study.spec import StudySpec
from tests.integration.toy_study import spec as toy_spec
from tests.integration.toy_study import toy_data

LENET = StudySpec(name="lenet", network="lenet5", data="mnist", embedded={"data": "digits", "epochs": 9.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ".hidden"}, "one plain folder name"),
        ({"name": "a/b"}, "one plain folder name"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"rungs": (2, 1)}, "rungs must be increasing"),
        ({"epochs": math.inf}, "epochs must be above 0 and finite, got inf"),
        ({"dense_epochs": 0}, "dense_epochs must be above 0 and finite, got 0"),
        ({"rungs": (-1, 1)}, "rungs must be increasing"),
        ({"rungs": (1, 1)}, "rungs must be increasing"),
        ({"rungs": (0, math.inf)}, r"rungs must be increasing, finite epochs from 0, got \(0, inf\); try"),
        ({"rungs": (math.nan,)}, r"finite epochs from 0, got \(nan,\)"),
        ({"reduction_factor": 1.0}, "reduction factor must be at least 2 and finite, got 1.0; 2 lets"),
        ({"reduction_factor": 0.5}, "reduction factor must be at least 2 and finite, got 0.5"),
        ({"reduction_factor": math.nan}, "reduction factor must be at least 2 and finite, got nan"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1; try 0"),
        ({"seed": 0.5}, "seed must be a whole number from 0, got 0.5"),
        ({"objectives": ()}, "at least one objective"),
        ({"objectives": (Objective("macs", "minimize"),) * 2}, "each objective may be given once"),
        ({"objectives": (Objective("flops", "minimize"),)}, "unknown objective 'flops'"),
        ({"reference_point": {"val_accuracy": 93.0}}, r"got val_accuracy=93; 93% is 0.93"),
        ({"reference_point": {"val_acuracy": 0.9}}, "did you mean 'val_accuracy'"),
        ({"reference_point": {"macs": math.nan}}, "reference value of macs must be finite, got nan"),
        ({"limits": {"val_accuracy": 0.9}}, "limits know costs only"),
        ({"min_val_accuracy": 93}, r"got 93; 93% is 0\.93"),
        ({"min_val_accuracy": 1}, "expected a least accuracy below 1, which no network exceeds, got 1;"),
        (
            {"min_val_accuracy": 0.9, "objectives": (Objective("macs", "minimize"),)},
            "expected val_accuracy:maximize among the objectives, .* at least 0.9, got macs:minimize; add it",
        ),
        ({"final_fine_tuning": {"shft": 1}}, "unknown field 'shft' of a recipe; did you mean 'shift'"),
        ({"final_fine_tuning": {"shift": -1}}, "shift must be a whole number >= 0, got -1"),
        (
            {"loss": "mse", "final_fine_tuning": {"label_smoothing": 0.1}},
            "label smoothing 0.1 needs the loss cross_entropy, got another; 0 turns it off",
        ),
        ({"limits": {"macs": 0}}, "limit of macs must be above 0, got 0"),
    ],
)
def test_study_that_cannot_work_is_refused_when_it_is_declared(changes, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        LENET.changed(**changes)
    assert "\n" not in str(raised.value)


def test_reference_point_is_dense_cost_and_chance_accuracy_by_default():
    roles = LENET.for_data(None).load_data(None, "train:0.1", 0)
    reference = LENET.resolve_reference(roles, {"macs": 498_750, "parameters": 40_225})
    assert reference == {"val_accuracy": 0.1, "macs": 498_750.0}
    given = LENET.changed(reference_point={"val_accuracy": 0.9})
    assert given.resolve_reference(roles, {"macs": 498_750}) == {"val_accuracy": 0.9, "macs": 498_750.0}


def test_metric_without_a_default_needs_a_reference_value():
    roles = toy_data(None, validation_from="train:0.1", seed=0)
    spec = toy_spec.changed(reference_point={})
    with pytest.raises(ConfigurationError, match="objective val_mae has no default reference value"):
        spec.resolve_reference(roles, {"parameters": 100})


def test_embedded_fields_count_only_without_a_data_folder():
    assert (LENET.for_data(None).data, LENET.for_data(None).epochs) == ("digits", 9.0)
    assert LENET.for_data(Path("somewhere")).data == "mnist"
    assert LENET.for_data(None).for_data(None) == LENET.for_data(None)


def test_description_changes_with_whatever_must_stay_and_not_with_the_number_of_trials():
    assert LENET.changed(trials=7).describe() == LENET.describe()
    for changes in ({"seed": 1}, {"epochs": 1.0}, {"rungs": (0.0,)}, {"network_options": {"n_classes": 5}}):
        assert LENET.changed(**changes).describe() != LENET.describe()
    other_loss = LENET.changed(loss=lambda outputs, targets: (outputs.sum(1) - targets).abs())
    assert other_loss.describe() != LENET.describe()


def test_what_a_spec_is_made_of_is_described_as_it_was_declared():
    def weigh(weights):
        return lambda outputs, targets: (outputs.sum(1) - targets).abs() * weights.sum()

    weights = torch.ones(2)
    study = LENET.changed(loss=weigh(weights))
    before = study.describe()
    weights.add_(1.0)
    copied = cloudpickle.loads(cloudpickle.dumps(study))
    for later in (
        study,
        replace(study, epochs=5.0),
        study.for_data(None),
        copied,
        replace(copied, epochs=5.0),
    ):
        assert later.describe()["loss"] == later.task().loss_identity == before["loss"]
    assert study.changed(loss=weigh(weights)).describe()["loss"] != before["loss"]

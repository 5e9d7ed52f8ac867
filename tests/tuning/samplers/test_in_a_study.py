"""The sampler of a study hears of every event of its ledger, on a real journal file."""

from __future__ import annotations

import pytest

from tests.tuning.test_ledger import metrics_of, open_ledger
from tests.tuning.test_pausing import run_to


def look(ledger) -> list[tuple]:
    shown = ledger.study.sampler.choose_shown(ledger.study, asking=-1)
    return [(trial.number, trial.state.name, trial.values, trial.params) for trial in shown]


@pytest.mark.parametrize("halving", ["promoting", "stopping"])
def test_sampler_knows_each_report_at_once_and_after_a_restart_the_same(tmp_path, halving):
    ledger = open_ledger(tmp_path, halving=halving, trials=12)
    configurations = [ledger.next_configuration() for _ in range(9)]
    ledger.completed(0, metrics_of(ledger, configurations[0], 0.99))
    assert [(number, state) for number, state, *_ in look(ledger)] == [
        (0, "COMPLETE"),
        *((number, "RUNNING") for number in range(1, 9)),
    ]
    assert all(params for *_, params in look(ledger))
    halted = [number for number in range(1, 7) if not run_to(ledger, number, 0, 0.7 - number / 10, 3000.0)]
    assert halted
    ledger.failed(7, "it could not be trained")
    shown = {number: (state, values) for number, state, values, _ in look(ledger)}
    assert [number for number, (state, _) in shown.items() if state == "RUNNING"] == [8]
    assert 7 not in shown
    assert [shown[number][1] for number in range(1, 7)] == [
        pytest.approx([number / 10 - 0.7, 3000.0]) for number in range(1, 7)
    ]
    assert look(open_ledger(tmp_path, halving=halving, trials=12)) == look(ledger)

"""Syne Tune's MOASHA behind lines of JSON, for a Python that has syne-tune; `search_moasha.py` starts it.

It takes requests on stdin and answers each with one line: {"do": "suggest"} with a configuration, {"do":
"report", ...} and {"do": "complete", ...} with whether the trial goes on.
"""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace

import numpy as np
from syne_tune.config_space import randint
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA


def main() -> None:
    """Answer requests until there are no more."""
    given = json.loads(sys.argv[1])
    random.seed(given["seed"])
    np.random.seed(given["seed"])
    scheduler = MOASHA(
        {name: randint(0, n - 1) for name, n in given["space"].items()},
        metrics=["error", "macs"],
        time_attr="epochs",
        max_t=given["max_t"],
        grace_period=1,
        reduction_factor=given["reduction_factor"],
        random_seed=given["seed"],
    )
    n_trials = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "suggest":
            answer = {name: int(value) for name, value in scheduler.suggest().config.items()}
            scheduler.on_trial_add(SimpleNamespace(trial_id=n_trials))
            n_trials += 1
        else:
            trial = SimpleNamespace(trial_id=request["trial"])
            if request["do"] == "report":
                answer = scheduler.on_trial_result(trial, request["result"]) == "CONTINUE"
            else:
                scheduler.on_trial_complete(trial, request["result"])
                answer = False
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""What Ray Tune is given to hand to its workers."""

from __future__ import annotations

import pytest
from ray.tune import Trainable
from ray.tune.execution import class_cache

from dirprune.tuning.mends import keep_keys_from_ray_

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def test_no_key_of_a_store_goes_where_ray_logs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "a-key-of-tests")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", set(class_cache.ENV_VARS_TO_PROPAGATE))
    handed = (
        class_cache._ActorClassCache().get(type("Before", (Trainable,), {}))._default_options["runtime_env"]
    )
    assert "a-key-of-tests" in str(handed), "Ray hands over none: nothing is left to be kept from it"
    keep_keys_from_ray_()
    handed = (
        class_cache._ActorClassCache().get(type("After", (Trainable,), {}))._default_options["runtime_env"]
    )
    assert handed["env_vars"]
    assert "a-key-of-tests" not in str(handed)

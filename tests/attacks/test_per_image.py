"""Goals, and how settings find their attack."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.models import IMAGES, KEYS, LABELS, random_linear
from vibx.attacks.per_image import Goal, perturb, tasks
from vibx.attacks.settings import Attack
from vibx.errors import ConfigError


@jax.jit
def margin_and_reached(goal, logits, confidence):
    return goal.margin(logits), goal.reached(logits, confidence)


@given(
    logits=hnp.arrays(np.float32, 10, elements=st.floats(-50, 50, width=16)),
    label=st.integers(0, 9),
    targeted=st.booleans(),
    confidence=st.sampled_from([0.0, 1.0, 5.0]),
)
@settings(max_examples=60)
def test_goal_is_reached_where_the_margin_is_below_minus_kappa(logits, label, targeted, confidence):
    goal = Goal(jnp.int32(label), jnp.bool_(targeted))
    others = np.delete(logits, label).max()
    expected = others - logits[label] if targeted else logits[label] - others
    margin, reached = margin_and_reached(goal, logits, confidence)
    assert margin == expected
    if expected != -confidence:  # a tie goes to the first class
        assert bool(reached) == (expected < -confidence)


def test_settings_without_code_say_so():
    with pytest.raises(ConfigError, match="bribery: Attack has a schema"):
        perturb(
            Attack(name="bribery"),
            random_linear(10),
            tasks(IMAGES, LABELS, KEYS),
            on_progress=lambda fraction: None,
        )

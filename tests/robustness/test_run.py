"""Goals of test images, and what the record counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.robustness.test_config import attack_config
from vibx.data import DataInfo
from vibx.robustness.run import summary, targets_of

MNIST = DataInfo((28, 28, 1), 10, 60_000, 10_000, "")
SMALL = DataInfo((16, 16, 3), 4, 100, 36, "")


@pytest.mark.parametrize("info", [MNIST, SMALL], ids=["mnist", "small"])
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_targets_are_wrong_classes_that_an_image_has_whichever_others_are_there(info, seed, data):
    index = st.integers(0, info.test_images - 1)
    indices = data.draw(st.lists(index, min_size=1, max_size=20, unique=True))
    labels = np.asarray([index % info.classes for index in indices])
    targets = targets_of(labels, attack_config(seed=seed, images=tuple(indices)), info)
    assert (targets != labels).all()
    assert ((targets >= 0) & (targets < info.classes)).all()
    alone = targets_of(labels[-1:], attack_config(seed=seed, images=(indices[-1],)), info)
    assert alone[0] == targets[-1]


def test_what_the_attack_saw_and_what_holds_are_counted_apart():
    """Four images: held, seen to fall and fell, seen to fall and did not, wrong from the start."""
    votes = {"right": [4, 0], "wrong": [0, 4]}
    found = summary(
        {
            "label": np.zeros(4, int),
            "target": np.full(4, -1),
            "success": np.array([False, True, True, True]),
            "votes_before": np.array([votes["right"]] * 3 + [votes["wrong"]]),
            "votes": np.array([votes["right"], votes["wrong"], votes["right"], votes["wrong"]]),
            **{n: np.array([9.0, 1, 2, 0]) for n in ("l2", "linf", "l0_8_bits", "l0_visible")},
        }
    )
    assert found["accuracy_before"] == 0.75
    assert found["misclassified_before"] == 1
    assert found["successes_seen"] == 3
    assert found["accuracy_seen"] == 0.25
    assert found["accuracy_recheck"] == 0.5
    assert found["goal_recheck"] == 0.5
    assert found["l2_median"] == 1


@pytest.mark.parametrize(("moved", "expected"), [(0.0, 0.5), (0.3, None)])
def test_what_a_targeted_attack_leaves_short_of_its_target_is_right_only_if_unchanged(
    moved, expected
):
    norms = {n: np.array([2.0, moved]) for n in ("l2", "linf", "l0_8_bits", "l0_visible")}
    votes = {"votes_before": np.array([[4, 0, 0]] * 2), "votes": np.array([[0, 4, 0], [0, 0, 4]])}
    success = np.array([True, False])
    found = summary(
        {"label": np.zeros(2, int), "target": np.ones(2, int), "success": success} | votes | norms
    )
    assert found["accuracy_seen"] == expected
    assert found["goal_recheck"] == 0.5

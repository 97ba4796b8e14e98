"""Auto-PGD against its authors' own, pyautoattack, on the committed weights in PyTorch.

Needs the extra `oracle`; skipped without it. `pytest -s` prints the accuracies that README has.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

import vibx.attacks
from tests.attacks.models import KEY, mnist, settings
from vibx import store
from vibx.attacks.per_image import image_keys, perturb, tasks
from vibx.attacks.scoring import reevaluate, share_of
from vibx.robustness.classifier import classifier_of

torch = pytest.importorskip("torch")
pyautoattack = pytest.importorskip("pyautoattack")
vibx.attacks.import_modules()

WEIGHTS = Path(__file__).parents[2] / "outputs" / "paper" / "weights"
DETERMINISTIC, *NOISY = "objective=maximum_likelihood", "beta=1e-3", "beta=1e-2"
N = 50
IMAGES, LABELS = mnist("t10k", N)
KEYS = image_keys(KEY, np.arange(N))
SAMPLES = 12
ANSWERS = 100
TOLERANCE = 2 / N
BUDGETS = [("l2", 1.0), ("l2", 1.5), ("linf", 0.05), ("linf", 0.1)]
budgets = pytest.mark.parametrize(("norm", "epsilon"), BUDGETS)


@functools.cache
def model_of(run):
    """The committed weights of the run that satisfies a condition, as ours and in PyTorch."""
    (stored,), _ = store.select(WEIGHTS, run)
    model, bottleneck = classifier_of(stored, SAMPLES), stored.record["config"]["bottleneck"]
    given = {"samples": SAMPLES, "scale_shift": bottleneck.get("scale_shift")}
    return model, TorchVIB(model.args[0], **given)


class TorchVIB(torch.nn.Module):
    """Section 4's model by hand: from weights as vibx has them; z itself is sampled.

    Without a `scale_shift` it is deterministic.
    """

    def __init__(self, weights, *, samples, scale_shift):
        super().__init__()
        as_tensors = jax.tree.map(lambda array: torch.tensor(np.array(array)), weights)
        encoder, decoder = as_tensors["encoder"], as_tensors["decoder"]
        hidden = [layer for _, layer in sorted(encoder["hidden"]["layers"].items())]
        self.hidden, self.head, self.decoder = hidden, encoder["head"], decoder["head"]
        self.samples, self.scale_shift = samples, scale_shift

    def forward(self, images):
        x = 2 * images.flatten(1) - 1
        for layer in self.hidden:
            x = torch.relu(x @ layer["kernel"] + layer["bias"])
        mean = x @ self.head["kernel"] + self.head["bias"]
        if self.scale_shift is None:
            return mean @ self.decoder["kernel"] + self.decoder["bias"]
        mean, rho = mean.chunk(2, dim=1)
        scale = torch.nn.functional.softplus(rho + self.scale_shift)
        z = mean + scale * torch.randn(self.samples, *mean.shape)
        log_q = torch.log_softmax(z @ self.decoder["kernel"] + self.decoder["bias"], dim=-1)
        return torch.logsumexp(log_q, dim=0) - np.log(self.samples)


def theirs(model, norm, epsilon, *, noise_samples, steps, restarts=1, images=IMAGES, labels=LABELS):
    """The images of their APGD, on cross-entropy and on the difference of logits ratio.

    With noise each of the two has half of the restarts, so that theirs descend as often as ours.
    """
    version = "rand" if noise_samples > 1 else "custom"
    attacks = None if noise_samples > 1 else ["apgd-ce", "apgd-dlr"]
    attack = pyautoattack.AutoAttack(
        model, attacks=attacks, eps=epsilon, norm={"l2": "L2", "linf": "Linf"}[norm], seed=0,
        version=version,
    )  # fmt: skip
    attack.apgd.n_restarts = restarts // 2 if noise_samples > 1 else restarts
    attack.apgd.n_iter = steps
    shares = {"n_iter_2": 0.22, "n_iter_min": 0.06, "size_decr": 0.03}
    for name, share in shares.items():
        setattr(attack.apgd, name, max(int(share * steps), 1))
    attack.apgd.eot_iter = noise_samples
    torch.manual_seed(0)
    x, y = torch.tensor(images).reshape(-1, 1, 28, 28), torch.tensor(labels, dtype=torch.int64)
    found, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    return found.reshape(len(x), -1).numpy()


def ours(model, norm, epsilon, *, noise_samples, steps, restarts=1):
    given = {"norm": norm, "epsilon": epsilon, "steps": steps, "restarts": restarts}
    attack = settings("apgd", **given, noise_samples=noise_samples)
    wanted = tasks(IMAGES, LABELS, KEYS)
    return perturb(attack, model, wanted, on_progress=lambda fraction: None).images


def right(model, images):
    """The share of right answers to each image under independent noise."""
    keys = image_keys(jax.random.key(11), np.arange(len(images)))
    votes = reevaluate(model, np.asarray(images), keys, repeats=ANSWERS)
    return share_of(np.asarray(votes), LABELS)


def left(run, norm, epsilon, **effort):
    """The share of right answers to our images and to theirs, and to images not attacked."""
    model, torch_model = model_of(run)
    found = {
        "ours": ours(model, norm, epsilon, **effort),
        "theirs": theirs(torch_model, norm, epsilon, **effort),
        "not attacked": IMAGES,
    }
    shares = {name: right(model, images).mean() for name, images in found.items()}
    print(run, norm, epsilon, {name: f"{100 * share:.1f}%" for name, share in shares.items()})
    return shares


def test_a_deterministic_model_is_the_same():
    model, torch_model = model_of(DETERMINISTIC)
    logits = jax.vmap(model, (0, None))(IMAGES, KEY)
    np.testing.assert_allclose(torch_model(torch.tensor(IMAGES)), logits, atol=1e-4)


@pytest.mark.parametrize("run", NOISY)
def test_a_noisy_model_is_the_same(run):
    """On images halfway to grey, where answers differ."""
    model, torch_model = model_of(run)
    faint = 0.5 * IMAGES + 0.25
    torch.manual_seed(1)
    with torch.no_grad():
        answers = [torch_model(torch.tensor(faint)).argmax(1) for _ in range(ANSWERS)]
    shares = (torch.stack(answers).numpy() == LABELS).mean(axis=0)
    np.testing.assert_allclose(shares, right(model, faint), atol=0.3)
    assert shares.mean() == pytest.approx(right(model, faint).mean(), abs=0.02)


@budgets
def test_accuracy_on_a_deterministic_model_is_theirs(norm, epsilon):
    shares = left(DETERMINISTIC, norm, epsilon, noise_samples=1, steps=50, restarts=5)
    assert abs(shares["ours"] - shares["theirs"]) <= TOLERANCE
    assert 0 < shares["ours"] < shares["not attacked"]


@budgets
@pytest.mark.parametrize("run", NOISY)
def test_on_a_noisy_model_no_more_is_left_than_of_theirs(run, norm, epsilon):
    """Theirs may leave more: `rand` keeps images that one noisy answer got wrong."""
    shares = left(run, norm, epsilon, noise_samples=20, steps=50, restarts=4)
    assert shares["ours"] <= shares["theirs"] + TOLERANCE

"""Auto-PGD against its authors' own, pyautoattack, on the same weights in PyTorch.

Needs the extra `oracle`; skipped without it.
"""

import jax
import numpy as np
import pytest

import vibx.attacks
from tests.attacks.models import KEY, mnist, settings, trained
from vibx.attacks.per_image import image_keys, perturb, tasks
from vibx.attacks.scoring import reevaluate, share_of

torch = pytest.importorskip("torch")
pyautoattack = pytest.importorskip("pyautoattack")
vibx.attacks.import_modules()

N = 50
IMAGES, LABELS = mnist("t10k", N)
KEYS = image_keys(KEY, np.arange(N))
ANSWERS = 100
TOLERANCE = 2 / N
BUDGETS = [("l2", 0.5), ("l2", 1.0), ("linf", 0.05), ("linf", 0.1)]
budgets = pytest.mark.parametrize(("norm", "epsilon"), BUDGETS)


class TorchVIB(torch.nn.Module):
    """Section 4's model by hand: from weights as vibx has them; z itself is sampled."""

    def __init__(self, weights, *, samples, scale_shift=0.0):
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
        if not self.samples:
            return mean @ self.decoder["kernel"] + self.decoder["bias"]
        mean, rho = mean.chunk(2, dim=1)
        scale = torch.nn.functional.softplus(rho + self.scale_shift)
        z = mean + scale * torch.randn(self.samples, *mean.shape)
        log_q = torch.log_softmax(z @ self.decoder["kernel"] + self.decoder["bias"], dim=-1)
        return torch.logsumexp(log_q, dim=0) - np.log(self.samples)


def theirs(model, norm, epsilon, *, noise_samples, steps, restarts=1, images=IMAGES, labels=LABELS):
    """The images of their APGD, on cross-entropy and on the difference of logits ratio."""
    version = "rand" if noise_samples > 1 else "custom"
    attacks = None if noise_samples > 1 else ["apgd-ce", "apgd-dlr"]
    attack = pyautoattack.AutoAttack(
        model, attacks=attacks, eps=epsilon, norm={"l2": "L2", "linf": "Linf"}[norm], seed=0,
        version=version,
    )  # fmt: skip
    attack.apgd.n_restarts, attack.apgd.n_iter = restarts, steps
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


def test_the_models_are_the_same():
    model = trained("deterministic")
    logits = jax.vmap(model, (0, None))(IMAGES, KEY)
    same = TorchVIB(model.args[0], samples=0)(torch.tensor(IMAGES))
    np.testing.assert_allclose(same, logits, atol=1e-4)
    noisy = trained("vib")
    torch.manual_seed(1)
    answers = TorchVIB(noisy.args[0], samples=12)
    with torch.no_grad():
        predicted = torch.stack([answers(torch.tensor(IMAGES)).argmax(1) for _ in range(ANSWERS)])
    shares = (predicted.numpy() == LABELS).mean(axis=0)
    np.testing.assert_allclose(shares, right(noisy, IMAGES), atol=0.3)
    assert shares.mean() == pytest.approx(right(noisy, IMAGES).mean(), abs=0.02)


@budgets
def test_accuracy_on_a_deterministic_model_is_theirs(norm, epsilon):
    model = trained("deterministic")
    effort = {"noise_samples": 1, "steps": 50, "restarts": 5}
    torch_model = TorchVIB(model.args[0], samples=0)
    left = {
        "ours": right(model, ours(model, norm, epsilon, **effort)).mean(),
        "theirs": right(model, theirs(torch_model, norm, epsilon, **effort)).mean(),
    }
    print(norm, epsilon, left)
    assert abs(left["ours"] - left["theirs"]) <= TOLERANCE
    assert 0 < left["ours"] < right(model, IMAGES).mean()


@budgets
def test_on_a_noisy_model_no_more_is_left_than_of_theirs(norm, epsilon):
    """Theirs may leave more: `rand` keeps images that one noisy answer got wrong."""
    model = trained("vib")
    effort = {"noise_samples": 20, "steps": 50, "restarts": 2}
    torch_model = TorchVIB(model.args[0], samples=12)
    left = {
        "ours": right(model, ours(model, norm, epsilon, **effort)).mean(),
        "theirs": right(model, theirs(torch_model, norm, epsilon, **effort)).mean(),
    }
    print(norm, epsilon, left)
    assert left["ours"] <= left["theirs"] + TOLERANCE

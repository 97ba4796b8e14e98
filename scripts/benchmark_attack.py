"""Time vibx's attack of Carlini and Wagner against foolbox's, and against its own promise.

    pip install -e '.[dev]' && python scripts/benchmark_attack.py --deterministic RUN --run VIB_RUN

Both are names of directories of finished runs, which are only read. The settings are those of
conf/attack/attack/carlini_wagner_l2.yaml, on the first test images, untargeted, on the CPU.

--deterministic: a model of the paper's architecture without noise, for vibx and foolbox alike.

- jitted: 100 images. foolbox with the loss of its attack jitted, in turns with vibx;
- as installed: 10 images, once. foolbox as it is on the model as it is: nothing is jitted, and the
  loss is traced again in each iteration.

Times are without compilation: vibx's come after a whole attack whose time, which contains it, is
shown as the first; foolbox's after a short attack. Each aborts early as it does by default: vibx
image by image, foolbox when the loss summed over the batch has stopped falling. That belongs to
what is timed, and lets results differ a little; --no-abort compares them without. The median of
foolbox / vibx over the rounds is what counts.

--run: a VIB as the paper attacks it: 1,000 images, 12 samples of z. The time is that of
`vibx attack` after the weights are read, with compilation and with the re-evaluation.

The machine has to be idle.
"""

import argparse
import dataclasses
import functools
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hydra
import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from rich.table import Table

from vibx import config, store
from vibx.attacks.carlini_wagner import carlini_wagner_l2
from vibx.attacks.per_image import Classify, Task
from vibx.attacks.scoring import norms
from vibx.attacks.settings import CarliniWagnerL2
from vibx.display import RESULTS
from vibx.errors import UserError
from vibx.robustness.classifier import classifier_of
from vibx.robustness.config import AttackConfig, parse_attack
from vibx.robustness.run import PART, attack_images, attack_tasks, summary
from vibx.training.run import device_name

try:
    import eagerpy
    import foolbox
except ImportError:
    sys.exit("benchmark_attack: error: foolbox is missing: pip install -e '.[dev]'")

JITTED_IMAGES, JITTED_OVER_VIBX = 100, 4  # at least
INSTALLED_IMAGES, INSTALLED_OVER_VIBX = 10, 40  # at least
PROMISED_IMAGES, PROMISED_MINUTES = 1000, 6  # at most, on 2 idle cores
WARM_UP_ITERATIONS = 10


class Problem(NamedTuple):
    """What both attack: a model without noise, images in [0, 1], and the classes to leave."""

    settings: CarliniWagnerL2
    classify: Classify
    tasks: Task


class Found(NamedTuple):
    """What an attack found, image by image.

    Attributes:
        l2: Norm of the perturbation in pixels of range 1; without meaning where it failed.
        success: Whether an image was found that is not in the class.
        already: Whether the original is not in it either; None where that is not told.
    """

    l2: Float[np.ndarray, "n"]
    success: Bool[np.ndarray, "n"]
    already: Bool[np.ndarray, "n"] | None


Attack = Callable[[Problem], Found]
jit_once = functools.cache(jax.jit)


def vibx_attack(problem: Problem) -> Found:
    """The attack of `vibx attack`."""
    found = carlini_wagner_l2(*problem)
    return Found(*map(np.asarray, (found.l2, found.success, found.already)))


def foolbox_attack(
    problem: Problem, *, prepare: Callable[[Callable], Callable] = lambda f: f
) -> Found:
    """The same attack by foolbox, as it is installed; `prepare` is what is done to the model."""
    settings, classify, tasks = problem
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=settings.search_steps,
        steps=settings.iterations,
        stepsize=settings.learning_rate,
        confidence=settings.confidence,
        initial_const=settings.initial_constant,
        abort_early=settings.abort_early,
    )
    model = foolbox.models.JAXModel(prepare(batched(classify)), bounds=(0, 1))
    criterion = foolbox.criteria.Misclassification(tasks.goal.label)
    found, _, success = attack(model, tasks.image, criterion, epsilons=None)
    # Where it failed it returns a black image, which may well be misclassified.
    failed = np.all(np.asarray(found) == 0, axis=1)
    return Found(norms(tasks.image, found).l2, np.asarray(success) & ~failed, None)


@functools.cache  # jit compares functions by identity
def batched(classify: Classify) -> Callable[[Float[Array, "n pixels"]], Array]:
    """The model as foolbox takes it."""
    return jax.vmap(lambda x: classify(x, jax.random.key(0)))


def jitted_foolbox_attack() -> Attack:
    """`foolbox_attack` of one problem with its loss compiled once, in the first call.

    The attack asks eagerpy for the value and gradient of its loss, a new function in each call.
    For as long as it runs, eagerpy answers with a jitted one, and in later calls with that of the
    first, which is the same loss: images, labels and model are constants of it, c is an argument.
    The rest (Adam, the test for success, the search) stays as it is.
    """
    value_and_grad = eagerpy.JAXTensor._value_and_grad_fn
    compiled = []

    def jitted(tensor: Any, loss: Callable, has_aux: bool = False) -> Callable:
        if not compiled:
            compiled.append(jax.jit(value_and_grad(tensor, loss, has_aux=has_aux)))
        return compiled[0]

    def attack(problem: Problem) -> Found:
        with mock.patch.object(eagerpy.JAXTensor, "_value_and_grad_fn", jitted):
            return foolbox_attack(problem, prepare=jit_once)

    return attack


def timed(attack: Attack, problem: Problem) -> tuple[float, Found]:
    """Seconds, and what was found: arrays in the host's memory, so that nothing is pending."""
    gc.collect()
    start = time.perf_counter()
    found = attack(problem)
    return time.perf_counter() - start, found


def compare(
    name: str, problem: Problem, foolbox_attack: Attack, *, rounds: int, wanted: float
) -> None:
    """Warm up, let both attack in turns, and print times, ratios and how results agree."""
    settings = problem.settings
    short = dataclasses.replace(settings, search_steps=1, iterations=WARM_UP_ITERATIONS)
    foolbox_attack(problem._replace(settings=short))
    first, _ = timed(vibx_attack, problem)
    times = []
    for _ in range(rounds):
        ours_seconds, ours = timed(vibx_attack, problem)
        theirs_seconds, theirs = timed(foolbox_attack, problem)
        times.append((ours_seconds, theirs_seconds, theirs_seconds / ours_seconds))
    title = f"{name}: {described(problem)}"
    RESULTS.print(result_table(title, first, times, wanted=wanted))
    RESULTS.print(agreement(ours, theirs))


def compare_without_abort(problem: Problem) -> None:
    """Print how results agree where every image takes every iteration."""
    settings = dataclasses.replace(problem.settings, abort_early=False)
    problem = problem._replace(settings=settings)
    RESULTS.print(f"early abort off in both: {described(problem)}")
    RESULTS.print(agreement(vibx_attack(problem), jitted_foolbox_attack()(problem)))


def described(problem: Problem) -> str:
    """What decides how long it takes."""
    settings = problem.settings
    return (
        f"{len(problem.tasks.image)} images, {settings.search_steps} search steps of "
        f"{settings.iterations} iterations"
    )


def result_table(
    title: str, first: float, times: list[tuple[float, float, float]], *, wanted: float
) -> Table:
    """The first attack of vibx, all rounds, and medians; a ratio's is over the rounds' ratios."""
    table = Table("round", title=title, title_justify="left")
    for name in ("vibx, s", "foolbox, s", "foolbox / vibx"):
        table.add_column(name, justify="right")
    table.add_row("first, with compilation", f"{first:.2f}", "", "")
    for number, row in enumerate(times, 1):
        table.add_row(str(number), *(f"{x:.2f}" for x in row), end_section=row is times[-1])
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    table.add_row("median", *(f"{x:.2f}" for x in medians))
    table.add_row("wanted", "", "", f">= {wanted}")
    return table


def agreement(ours: Found, theirs: Found) -> str:
    """Successes of both, and norms where both succeed on an image that had to be changed."""
    compared = ours.success & theirs.success & ~ours.already
    counts = (
        f"successes: vibx {ours.success.sum()}, foolbox {theirs.success.sum()}; "
        f"{ours.already.sum()} misclassified before"
    )
    if not compared.any():
        return f"{counts}; none to compare"
    a, b = ours.l2[compared], theirs.l2[compared]
    difference = a / b - 1
    largest = difference[np.argmax(np.abs(difference))]
    return (
        f"{counts}\nmedian L2 of {compared.sum()} images: vibx {np.median(a):.4f}, "
        f"foolbox {np.median(b):.4f}; vibx / foolbox - 1, image by image: "
        f"median {np.median(difference):+.2%}, largest {largest:+.2%}"
    )


def composed(images: int, iterations: int) -> AttackConfig:
    """The configuration of `vibx attack n=... attack.iterations=...`."""
    with hydra.initialize_config_dir(str(config.directory("attack")), version_base="1.3"):
        overrides = [f"n={images}", f"attack.iterations={iterations}"]
        return parse_attack(hydra.compose("attack", overrides))[0]


def read_run(directory: Path) -> store.StoredRun:
    """A finished run."""
    return store.StoredRun(directory, store.read_record(directory))


def against_foolbox(args: argparse.Namespace) -> None:
    """Both comparisons with foolbox on a model without noise."""
    run = read_run(args.deterministic)
    cfg = composed(min(args.images, JITTED_IMAGES), args.iterations)
    classify = classifier_of(run, None)  # a VIB would have no noise either
    tasks, _ = attack_tasks(run, cfg)
    RESULTS.print(f"against foolbox {foolbox.__version__}: {run.record['run_id']}")
    problem = Problem(cfg.attack, classify, tasks)
    compare("jitted", problem, jitted_foolbox_attack(), rounds=args.rounds, wanted=JITTED_OVER_VIBX)
    if args.no_abort:
        compare_without_abort(problem)
    if not args.skip_installed:
        few = problem._replace(tasks=jax.tree.map(lambda leaf: leaf[:INSTALLED_IMAGES], tasks))
        compare("as installed", few, foolbox_attack, rounds=1, wanted=INSTALLED_OVER_VIBX)


def against_promise(args: argparse.Namespace) -> None:
    """Attack as `vibx attack` does, but write nothing, and print minutes."""
    run = read_run(args.run)
    cfg = composed(min(args.images, PROMISED_IMAGES), args.iterations)
    classify = classifier_of(run, cfg.samples)
    tasks, labels = attack_tasks(run, cfg)
    start = time.perf_counter()
    parts = []
    for first in range(0, cfg.n, PART):
        rows = slice(first, first + PART)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], tasks)
        found = attack_images(classify, cfg, part, on_progress=lambda done: None)
        parts.append({"label": np.asarray(labels[rows]), **found})
    minutes = (time.perf_counter() - start) / 60
    found = summary({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    RESULTS.print(
        f"promise: {run.record['run_id']}\n"
        f"{cfg.n} images, {cfg.mode}, {cfg.samples} samples, {args.iterations} iterations: "
        f"{minutes:.2f} minutes, with compilation\n"
        f"wanted: <= {PROMISED_MINUTES} for {PROMISED_IMAGES} images, on 2 idle cores\n"
        f"successes {found['successes_seen']}, median L2 {found['l2_median'] or np.nan:.4f}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--deterministic",
        type=Path,
        metavar="DIRECTORY",
        help="finished run without noise, to compare with foolbox",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIRECTORY", help="finished run of a VIB, for the promise"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of jitted (default: 3)")
    parser.add_argument(
        "--iterations", type=int, default=1000, help="of each search step (default: 1000)"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=PROMISED_IMAGES,
        help="at most so many in each comparison, for a trial (default: all)",
    )
    parser.add_argument(
        "--skip-installed", action="store_true", help="leave out foolbox as installed: minutes"
    )
    parser.add_argument(
        "--no-abort",
        action="store_true",
        help="also compare the results without early abort, untimed",
    )
    args = parser.parse_args()
    if args.deterministic is None and args.run is None:
        parser.error("nothing to do: name a run by --deterministic, --run or both")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: must be at least 1")
    return args


def machine() -> str:
    """What the times depend on."""
    return f"{device_name()}, load average {os.getloadavg()[0]:.2f}; jax {jax.__version__}"


def main() -> None:
    """Run the benchmark."""
    args = arguments()
    jax.config.update("jax_platforms", "cpu")
    RESULTS.print(machine())
    try:
        if args.deterministic is not None:
            against_foolbox(args)
        if args.run is not None:
            against_promise(args)
    except UserError as error:
        sys.exit(f"benchmark_attack: error: {error}")


if __name__ == "__main__":
    main()

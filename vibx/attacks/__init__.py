"""Attacks on classifiers. They see a callable, bounds [0, 1], labels and keys, nothing of vibx.

To add one: its schema in `settings.py`, a module here in which its code is registered (with
`per_image.perturb`, or with `descent.perturb_within` if it keeps a budget), and its yaml in
conf/attack/attack/.
"""

import importlib
import pkgutil


def import_modules() -> None:
    """Import every module here, which registers the attacks in it."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")

"""`vibx <command> ...`: one Hydra application per command. Imports no jax."""

import errno
import functools
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import vibx
from vibx.errors import Interrupted, Stop, UserError

COMMANDS = {
    "train": "train a model, or a sweep of them with -m",
    "evaluate": "re-evaluate finished runs with another number of samples",
    "runs": "list the runs of a store",
    "figures": "draw Table 1 and Figures 1 to 4 from what is there",
    "attack": "attack finished runs with adversarial images",
    "export": "write finished runs' weights for others to load",
}

USAGE = "usage: vibx <command> [key=value ...]\n\n{commands}\n\nvibx <command> --help tells more.\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `vibx` program."""
    args = [quoted(arg) for arg in (sys.argv[1:] if argv is None else argv)]
    if not args or args[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
        print(USAGE.format(commands=commands), end="")
    elif args[0] == "--version":
        print(f"vibx {vibx.__version__}")
    elif args[0] not in COMMANDS:
        fail("vibx", UserError(f"no command {args[0]!r}: one of {', '.join(COMMANDS)}"))
    else:
        run(args[0], args[1:])


def run(command: str, args: list[str]) -> None:
    """Run a command's Hydra application and turn its errors into one line and an exit code."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from vibx import config

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing and exiting
    program = f"vibx {command}"
    module = importlib.import_module(f"vibx.commands.{command}")
    multirun = [a for a in args if a in ("-m", "--multirun")]  # argparse wants it in front
    sys.argv = [program, *multirun, *(a for a in args if a not in multirun)]

    @functools.wraps(module.main)
    def task(cfg: DictConfig) -> None:
        try:
            module.main(cfg)
        except (UserError, OSError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the launcher goes on with the other jobs
            raise Stop from error

    directory = str(config.directory(command))
    application = hydra.main(version_base="1.3", config_path=directory, config_name=command)(task)
    try:
        application()
    except Interrupted as interruption:
        print(f"{program}: {interruption}", file=sys.stderr)
        sys.exit(130)
    except Stop as stop:
        fail(program, stop.__cause__)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        fail(program, error)


def quoted(arg: str) -> str:
    """`runs=beta=1e-3,seed=0` with the quotes that Hydra wants around such a value."""
    key, _, value = arg.partition("=")
    conditions = key == "runs" or (key == "attack.transfer_from" and "=" in value)
    return f'{key}="{value}"' if conditions and value and value[0] not in "\"'" else arg


def user_error(error: BaseException | None) -> UserError | None:
    """The error of ours that Hydra or OmegaConf wrapped."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def plain(message: str, program: str) -> str:
    """Hydra's message without what is of no use here: search paths and advice to append keys."""
    unknown = re.match(r"Could not override '(.+?)'", message)
    if unknown:
        return f"no such key: {unknown[1]}; {program} --help lists them"
    return re.sub(r"^In '\w+': ", "", message.split("Config search path:")[0])


def fail(program: str, error: BaseException | None) -> NoReturn:
    """Say what is wrong on one line of stderr, and exit: 1 for a failed run, 2 for bad input."""
    ours = user_error(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    code = ours.exit_code if ours else 1 if full else 2
    message = str(ours) if ours else plain(str(error), program)
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)

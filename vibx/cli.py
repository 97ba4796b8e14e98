"""`vibx <command> ...`: one Hydra application per command. Imports no jax."""

import errno
import functools
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import vibx
from vibx.errors import ConfigError, Interrupted, Stop, UserError, work

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "train": "train a model, or a sweep of them with -m",
    "evaluate": "re-evaluate finished runs with another number of samples",
    "runs": "list the runs of a store",
    "figures": "draw Table 1 and Figures 1 to 4 from what is there",
    "attack": "attack finished runs with adversarial images",
    "export": "write finished runs' weights for others to load",
}
SWEEPS = ("train", "attack")

USAGE = """usage: vibx <command> [key=value ...]

{commands}

vibx <command> --help tells more.
Exit code 0: all is done. 1: started, and not all of it is there. 2: refused before anything was
done. 130, 143: stopped by Ctrl-C, by SIGTERM; the same command goes on.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `vibx` program."""
    args = list(sys.argv[1:] if argv is None else argv)
    program = f"vibx {args[0]}" if args and args[0] in COMMANDS else "vibx"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, functools.partial(end_now, program))
    try:
        dispatch(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough
        from vibx.display import write_to_nowhere

        write_to_nowhere(sys.stdout)
    except Interrupted as interruption:
        leave(program, str(interruption), interruption.exit_code)


def dispatch(args: list[str]) -> None:
    """Do what the words of the command line say."""
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
    program = f"vibx {command}"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing and exiting
    try:
        apply(command, args)
    except Stop as stopped:
        error = stopped.__cause__
        told = user_error(error) or isinstance(error, OSError)
        if isinstance(error, BrokenPipeError) or not told:
            raise error from None  # type: ignore[misc]  # a defect is to be seen whole
        fail(program, error)
    except BrokenPipeError:
        raise
    except SystemExit as exited:  # Hydra's own, after a line of its own
        sys.exit(2 if exited.code == 1 else exited.code)
    except Exception as error:
        fail(program, error)


def apply(command: str, args: list[str]) -> None:
    """Read the arguments and hand them to the command's Hydra application.

    Whatever is raised but a `Stop` was wrong before the work began.
    """
    import importlib

    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from vibx import config

    arguments = read_arguments(command, args)
    module = importlib.import_module(f"vibx.commands.{command}")
    started_by = os.getpid()

    def task(cfg: "DictConfig") -> None:
        if os.getppid() == started_by:  # in a worker of a launcher
            from vibx.workers import end_with

            end_with(started_by)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            module.main(cfg)  # the launcher goes on with the other jobs
            return
        with work():
            module.main(cfg)

    sys.argv = [f"vibx {command}", *arguments]
    directory = str(config.directory(command))
    hydra.main(version_base="1.3", config_path=directory, config_name=command)(task)()


def read_arguments(command: str, args: list[str]) -> list[str]:
    """Flags, then overrides, as Hydra will understand them.

    Raises:
      ConfigError: it would not, or would do something else than was meant.
    """
    from hydra._internal.utils import get_args_parser

    from vibx.config import overrides

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; vibx {command} --help shows what there is")

    parser: Any = get_args_parser()
    parser.error = refuse
    parser.allow_abbrev = False
    given = parser.parse_intermixed_args(args)
    keys = overrides.keys_of(given.overrides)
    modes = ("multirun", "run", "cfg", "info", "shell_completion")
    several = [f"--{mode}".replace("_", "-") for mode in modes if getattr(given, mode)]
    if len(several) > 1:
        refuse(f"{' and '.join(several)} exclude each other")
    if given.experimental_rerun:
        refuse("--experimental-rerun: the same command finds its run again")
    if given.resolve and not (given.cfg or given.help):
        refuse("--resolve goes with --cfg or --help")
    if given.shell_completion:
        if len(keys & {"install", "uninstall", "query"}) != 1:
            refuse("--shell-completion goes with one of install=, uninstall=, query=")
        return [*(arg for arg in args if arg not in given.overrides), *given.overrides]
    if command not in SWEEPS and (given.multirun or "hydra.mode" in keys):
        refuse(f"vibx {command} has no sweeps")
    words = [overrides.readable(word, sweeps=command in SWEEPS) for word in given.overrides]
    sweep = given.multirun or bool(keys & {"experiment", "hydra.mode"})
    remarks = overrides.check(words, command=command, sweep=sweep)
    if remarks:
        from vibx.display import remark

        for text in remarks:
            remark(text)
    return [*(arg for arg in args if arg not in given.overrides), *words]


def end_now(program: str, number: int, _: FrameType | None) -> NoReturn:
    """Handle a signal where nothing waits for it: end, without the tracebacks of an unwinding.

    What is written is whole, and locks go with the process. Training has a handler of its own.
    """
    cursor = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
    os.write(2, f"{cursor}{program}: interrupted; the same command goes on\n".encode())
    os._exit(128 + number)


def user_error(error: BaseException | None) -> UserError | None:
    """The error of ours that Hydra or OmegaConf wrapped."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def fail(program: str, error: BaseException | None) -> NoReturn:
    """Say what is wrong on one line of stderr, and exit as `vibx.errors` says."""
    ours = user_error(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    code = ours.exit_code if ours else 1 if full else 2
    leave(program, f"error: {str(ours) if ours else plain(error, program)}", code)


def leave(program: str, message: str, code: int) -> NoReturn:
    """Say something on one line of stderr, and exit."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def plain(error: BaseException | None, program: str) -> str:
    """An error of Hydra or of the system in plain words."""
    import re

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    message = str(error)
    unknown = re.match(r"Could not (?:override|delete).*? '(.+?)'", message)
    there = re.match(
        r"Could not append.*? '(.+?)'|Multiple values for (\S+?)\. To override", message
    )
    choice = re.search(r"Could not (?:find|load) '((?:hydra/)?\w+)/(.*?)'", message)
    if unknown:
        return f"no such key: {unknown[1]}; {program} --help lists them"
    if there:
        return f"{there[1] or there[2]} is there already: it is changed without a plus"
    if choice:
        return no_such_choice(choice[1], choice[2], message, program)
    merged = re.match("Error merging override (.*)", message)
    if merged:
        return f"{merged[1]}: {str(error.__cause__ or error).splitlines()[0]}"  # type: ignore[union-attr]
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {message.splitlines()[0]}"
    if not isinstance(error, HydraException | OSError):
        place = error.__traceback__ if error else None
        while place and place.tb_next:
            place = place.tb_next
        where = f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})" if place else ""
        return f"{type(error).__name__}: {message}{where}"
    own = re.sub(r"^In '[\w/]+': ", "", message.split("Config search path:")[0])
    return (
        own.strip() or f"{type(error).__name__}: {(error and error.__cause__) or 'no reason given'}"
    )


def no_such_choice(group: str, name: str, message: str, program: str) -> str:
    """What there is instead of a choice; the command that has it where it is another one's."""
    from vibx import config
    from vibx.config import overrides

    for command in COMMANDS:
        if (config.directory(command) / group / f"{name}.yaml").is_file():
            return f"{group}={name} is vibx {command}'s: vibx {command} {group}={name}"
    _, _, options = message.partition("Available options")
    of_hydra = options.partition(":")[2].partition("Config search path")[0].split()
    own = overrides.choices_of(group, program.removeprefix("vibx "))
    names = of_hydra if group.startswith("hydra/") else own
    allowed = f"one of {', '.join(names)}" if names else f"a choice of {program} --help"
    return f"{group}={name}: must be {allowed}"

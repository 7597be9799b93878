"""How every stage starts: arguments, help, and one sentence for a fault that the user can mend."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stages.common.errors import LimaError
from stages.common.params import check_named


def run_stage(main: Callable[..., None], *, key: str | None = None, flags: Mapping[str, str] | None = None) -> None:
    """Run `main()`, or `main(<key>)`, as the command `python -m stages.<stage> [key]`.

    Args:
        main: the stage's main function; its module's docstring is the text of --help.
        key: name of the one argument, for stages that run once for each source, arm or opponent.
        flags: names of `main`'s switches, with their help; DVC sets none of them.
    """
    module: Any = sys.modules["__main__"]
    name = module.__spec__.name if module.__spec__ else main.__module__
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if key is not None:
        parser.add_argument(key, help=f"a key of `{key}s` in params.yaml")
    for flag, text in (flags or {}).items():
        parser.add_argument(f"--{flag.replace('_', '-')}", action="store_true", help=text)
    arguments = vars(parser.parse_args())
    raise SystemExit(run_command(lambda: _run_keyed(main, arguments)))


def _run_keyed(main: Callable[..., None], arguments: dict[str, str | bool]) -> None:
    """Refuse a key that its section of params.yaml lacks: a missing file would be blamed otherwise."""
    for name, value in arguments.items():
        if isinstance(value, bool):
            continue
        check_named(value, f"{name}s")
    main(**arguments)


def run_command(command: Callable[[], None]) -> int:
    """Run a command and give its exit status; a LimaError becomes one line on standard error."""
    try:
        command()
    except LimaError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0

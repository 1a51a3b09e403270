"""Shell completion. click completes commands, options and choices; the functions below complete files and the names
that irc declares. `irc completion SHELL` prints the script that connects a shell to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_IRC_COMPLETE"  # click reads the request of a shell from this environment variable


def script(command: click.Command, shell: str) -> str:
    """The script that a shell evaluates to complete `irc`; `shell` is one of `SHELLS`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    return kind(command, {}, "irc", VARIABLE).source()


def files(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def folders(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def page_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """The names that `irc doc` has pages of."""
    from irc.driver.documentation import page_names

    return [name for name in page_names() if name.startswith(incomplete)]


def target_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    from irc.driver.models import BACKENDS, find_backend

    return [name for backend in BACKENDS for name in find_backend(backend).TARGETS if name.startswith(incomplete)]


def device_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from irc.device import BUILT_IN

    names = [name for name in BUILT_IN if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def cost_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from irc.kernel_costs import BUILT_IN

    names = [name for name in BUILT_IN if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def pass_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """Passes and named pipelines, for the last name of a list such as `fold,cse,fu`."""
    from irc.driver.pipelines import pass_names
    from irc.named_pipelines import ALIASES

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in (*ALIASES, *pass_names()) if name.startswith(last)]


def limit_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    from irc.limits import LIMITS

    return [f"{name}=" for name in LIMITS if name.startswith(incomplete)]


def answer(command: click.Command) -> int:
    """Print what a shell asks for in the environment; returns the exit status."""
    import os

    from click.shell_completion import shell_complete

    return shell_complete(command, {}, "irc", VARIABLE, os.environ[VARIABLE])

"""Shell completion. click completes commands, options and choices; the functions below complete files, the names that
irc declares, and the names in the model that is already on the line (`model_names`).

A Tab runs no program of a user, imports no framework, prints nothing but completions, and never fails: `answer` is the
one place that sees to that. `irc completion SHELL` prints the script that connects a shell.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem, ShellComplete

    from irc.cli.model_names import Names

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_IRC_COMPLETE"  # click reads the request of a shell from this environment variable
PLAIN = re.compile(r"[\w%@.$/:,={}><*+-]*")  # what a shell leaves as it is
MODEL_PARAMETERS = ("model", "models", "names", "first")  # of commands
PROPERTIES = ("launches>=", "library_calls>=", "host_operations>=", "bytes>=", "loaded>=", "flops>=", "slower-than=",
              "refused:", "error", "error:", "differs")  # fmt: skip
QUANTIZATIONS = ("weights=int8", "weights=int4")
OPEN = ("=", "{", ":", ">=")  # completions that end so go on
# Bash splits words at : and =, and gives only the last part. Hence the whole line is sent.
BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    COMPREPLY=()
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
%(complete_var)s=bash_complete "$1" 2>/dev/null)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value == *[=:{] ]] && compopt -o nospace ;;
        esac
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
# No space after what goes on. A brace outside quotes lists alternatives, so that the word is not the one on the line.
ZSH_ADDED = ("compadd -U -V unsorted -a completions", """\
local -a open closed
        open=("${(@M)completions:#*[=:\\{]}")
        closed=("${(@)completions:#*[=:\\{]}")
        compadd -U -V unsorted -a closed
        compadd -U -V unsorted -S '' -a open""")
ZSH_BEGUN = ("return 1\n", """return 1
    [[ -z $compstate[quote] && $words[CURRENT] == *[^\\\\]\\{* ]] && return 1
""")


def shell_class(shell: str) -> type[ShellComplete] | None:
    """click's completion of a shell, with what it lacks for names that contain `:`, `=` and `,`."""
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete, split_arg_string

    class WithLine(ShellComplete):
        def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
            self.ctx_args = {**self.ctx_args, "obj": Line(list(args))}
            return super().get_completions(args, incomplete)

    class Bash(WithLine, BashComplete):
        source_template = BASH

        @staticmethod
        def _check_version() -> None:
            """Not needed to complete; the help of `irc completion` names the version."""

        def get_completion_args(self) -> tuple[list[str], str]:
            if "COMP_LINE" not in os.environ:  # a script of an earlier version
                return super().get_completion_args()
            *arguments, last = split_arg_string(os.environ["COMP_LINE"] + "x")[1:]
            return arguments, last[:-1]

        def format_completion(self, item: CompletionItem[str]) -> str:
            """Without the part of the word that Bash takes for words of their own."""
            text, breaks = str(item.value), set(os.environ.get("COMP_WORDBREAKS", "")) & set(":=@><")
            word = os.environ.get("COMP_LINE", "").split(" ")[-1]
            start = max((word.rfind(each) + 1 for each in breaks), default=0)
            before = word[:start].lstrip("\"'")
            quoted = word[:1] in ("'", '"')  # in quotes nothing is split
            return f"{item.type},{text.removeprefix(before) if not quoted else text}"

    class Zsh(WithLine, ZshComplete):
        source_template = ZshComplete.source_template.replace(*ZSH_ADDED).replace(*ZSH_BEGUN)

    class Fish(WithLine, FishComplete):
        source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')

        def get_completion_args(self) -> tuple[list[str], str]:
            """As click does from 8.2.1 on; 8.2.0 leaves an open quote in the word."""
            arguments, word = split_arg_string(os.environ["COMP_WORDS"])[1:], os.environ["COMP_CWORD"]
            word = (split_arg_string(word) or [""])[0]
            return arguments[:-1] if word and arguments[-1:] == [word] else arguments, word

    kinds: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
    return kinds.get(shell)


def script(command: click.Command, shell: str) -> str:
    """The script that a shell evaluates to complete `irc`; `shell` is one of `SHELLS`."""
    kind = shell_class(shell)
    assert kind is not None, shell
    return kind(command, {}, "irc", VARIABLE).source()


def answer(command: click.Command) -> int:
    """Print the completions that a shell requests in the environment; returns the exit status.

    Whatever goes wrong, the line that is being typed stays as it is: there are no completions then.
    """
    shell, _, instruction = os.environ[VARIABLE].partition("_")
    kind = shell_class(shell)
    if kind is None:
        return 1
    if instruction == "source":
        sys.stdout.write(script(command, shell))
        return 0
    text = ""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(Exception):
            text = kind(command, {}, "irc", VARIABLE).complete()
    sys.stdout.write(f"{text}\n")
    return 0


def matching(names: Iterable[str], incomplete: str, before: str = "") -> list[str]:
    """The names that begin so, each after `before`; not those that a shell would have to quote."""
    return [before + name for name in dict.fromkeys(names) if name.startswith(incomplete) and PLAIN.fullmatch(name)]


# -- files -----------------------------------------------------------------------------------------------------


def files(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    """Files; after `FILE.py:` the names that it defines."""
    from click.shell_completion import CompletionItem

    path, colon, name = incomplete.rpartition(":")
    if colon and path.endswith(".py"):
        from irc.cli.model_names import defined_in

        return [CompletionItem(each) for each in matching(defined_in(path), name, f"{path}:")]
    return [CompletionItem(incomplete, type="file")]


def folders(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def names_or_files(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    completions = [CompletionItem(name) for name in matching(names, incomplete)]
    return completions or files(None, None, incomplete)


# -- the model on the line -------------------------------------------------------------------------------------


@dataclass
class Line:
    """The words of the line before the one that is completed, from the command on."""

    words: list[str]


def stated(context: click.Context, *names: str) -> list[str]:
    """The texts on the line for parameters of these names. click has none where the last option waits for its value."""
    line = context.find_object(Line)
    words = [] if line is None else line.words[1:]
    if words and words[-1].startswith("-"):
        del words[-1]
    values, _, _ = context.command.make_parser(context).parse_args(words)
    completions = (values.get(name) for name in names)
    several = (value if isinstance(value, list | tuple) else [value] for value in completions)
    return [text for value in several for text in value if isinstance(text, str)]  # click has a mark for no value


def words_of(context: click.Context) -> list[str]:
    """The arguments of the command that are on the line, without options."""
    return stated(context, *MODEL_PARAMETERS)


def names_on(context: click.Context) -> Names:
    """The names in the models on the line."""
    from irc.cli.model_names import Names, names_in

    names = Names()
    for read in map(names_in, words_of(context)):
        names.values.update(read.values)
        names.kernels.update(read.kernels)
        names.symbols.update(read.symbols)
    return names


def values(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    """`%VALUE` of the model; commands take the name without % as well."""
    mark = "%" if not incomplete or incomplete.startswith("%") else ""
    return matching((mark + name for name in names_on(context).values), incomplete)


def sizes(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    """`B=` for each symbol of the model."""
    return matching((f"{name}=" for name in names_on(context).symbols), incomplete)


def explained(context: click.Context, parameter: Any, incomplete: str) -> list[CompletionItem]:
    """First a code, a rule or a model, then values and kernels."""
    from click.shell_completion import CompletionItem

    if not words_of(context):
        from irc.cli.reference_names import codes, legality_rules

        # Rules are slow to import.
        names = legality_rules() if re.fullmatch("F[0-9]*", incomplete) else codes() if incomplete else []
        return names_or_files(names, incomplete)
    completions = values(context, parameter, incomplete) if not incomplete.startswith("@") else []
    completions += matching((f"@{name}" for name in names_on(context).kernels), incomplete)
    return [CompletionItem(name) for name in completions]


def plan_names(context: click.Context, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    """`edit` and `diff`, or a model or plan."""
    completions = matching(("edit", "diff"), incomplete) if not words_of(context) and incomplete else []
    return names_or_files(completions, incomplete)


def plan_entries(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    """Entries and members of the plan on the line, for the last name of a list such as `h,y` or `h:%p`."""
    from irc.cli.model_names import of_plan

    place = max(incomplete.rfind(","), incomplete.rfind(":")) + 1
    before, last = incomplete[:place], incomplete[place:]
    mark = "%" if last.startswith("%") else ""
    plans = [word for word in words_of(context) if word.endswith(".json")]
    return matching((mark + name for plan in plans[:1] for name in of_plan(plan)), last, before)


# -- names that irc declares -----------------------------------------------------------------------------------


def page_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """The names that `irc doc` has pages of."""
    from irc.driver.documentation import page_names

    return matching(page_names(), incomplete)


def target_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    from irc.driver.models import BACKENDS, find_backend

    return matching((name for backend in BACKENDS for name in find_backend(backend).TARGETS), incomplete)


def device_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from irc.device import BUILT_IN

    return names_or_files(BUILT_IN, incomplete)


def cost_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from irc.kernel_costs import BUILT_IN

    return names_or_files(BUILT_IN, incomplete)


def limit_names(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    from irc.limits import LIMITS

    return matching((f"{name}=" for name in LIMITS), incomplete)


def kernel_kinds(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """The kinds of kernels that `irc calibrate` measures."""
    from irc.driver.calibrated import KINDS

    return matching(KINDS, incomplete)


def properties(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    """What `irc reduce --keep` keeps."""
    from irc.cli.reference_names import codes, legality_rules

    if incomplete.startswith("error:"):
        return matching((f"error:{code}" for code in codes()), incomplete)
    if incomplete.startswith("refused:"):
        return matching((f"refused:{rule}" for rule in legality_rules()), incomplete)
    return matching(PROPERTIES, incomplete)


def quantizations(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
    return matching(QUANTIZATIONS, incomplete)


# -- pipelines -------------------------------------------------------------------------------------------------


def pass_names(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    """For the last name of a list such as `fold,cse,fu`: passes and named pipelines; in braces, options of the pass;
    after FILE.py: of an option, the names in the file."""
    from irc.cli.model_names import defined_in
    from irc.cli.reference_names import option_names, stage_names

    loaded = stated(context, "load")
    place = max(incomplete.rfind(each) for each in "{,=:") + 1
    before, last = incomplete[:place], incomplete[place:]
    opened = before.rfind("{") > before.rfind("}")
    if before.endswith(".py:"):
        return matching(defined_in(re.split("[{,=]", before[:-1])[-1]), last, before)
    if opened and before.endswith(("{", ",")):
        stage = re.split("[,=]", before[: before.rfind("{")])[-1].strip()
        return matching((f"{name}=" for name in option_names(stage, loaded)), last, before)
    return matching(stage_names(loaded), last, before) if not opened else []


def named_pipelines(context: click.Context, parameter: Any, incomplete: str) -> list[str]:
    """As `pass_names`, after `NAME=`."""
    return pass_names(context, parameter, incomplete) if "=" in incomplete else []


def bases(context: click.Context, _parameter: Any, incomplete: str) -> list[str]:
    """What `irc experiment` compares with: the pipelines on the line, and those that it adds."""
    named = (text.partition("=")[0] for text in stated(context, "pipelines"))
    return matching([*named, "eager", "none"], incomplete)

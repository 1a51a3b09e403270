"""A hook of MkDocs: adds the pages that are not files of `docs/`, and makes their links those of the site.

These are the documents of the root (README is the first page), the notebooks as pages, the files of `examples/`, and
the reference, which is what `irc doc` and the docstrings of the public functions say. Nothing of it is written into
`docs/`. `make site` builds.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File
from pygments.lexers.shell import BashSessionLexer

import irc
from irc.cli.commands import PURPOSES
from irc.cli.main import cli
from irc.diagnostics import CODES
from irc.driver.code_pages import RULES
from irc.driver.documentation import TOPICS
from irc.driver.pipelines import pass_names
from irc.ops import TABLE

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# Files of the root, and what they are called in the site.
ROOT_PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
# Lists of `irc doc` that are short enough for a page as they are.
LISTS = ("pipelines", "plans", "planners", "targets", "devices", "costs", "limits")
CONSOLE_WIDTH = 100
CONSOLE = re.compile(r'<div class="highlight">(<pre>(?:(?!</pre>).)*<span class="gp">.*?</pre>)', re.DOTALL)
# A line of IR begins with % as a prompt of some shells does: here `$` is the only prompt.
BashSessionLexer._ps1rgx = re.compile(r"^(\$ )(.*\n?)")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    pages = {**root_pages(), **notebook_pages(), "examples.md": examples_page(), **reference_pages()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "examples.zip", content=zipped_examples()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_others: Any) -> str:
    """Links to files of the root become links to their pages; a link whose text is the file has the page's title."""
    root = "../" * page.file.src_uri.count("/")
    for name, site_name in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((\.\./)*{re.escape(name)}(?=[)#])", f"]({root}{site_name}", markdown)
    markdown = re.sub(r"\]\((\.\./)*examples\)", f"]({root}examples.md)", markdown)
    titles = dict(titled_pages(config["nav"]))
    return re.sub(r"\[(?:docs/)?[A-Za-z_]+\.md\]\((?=(?:\.\./)*([a-z_/]+\.md)[)#])",
                  lambda link: f"[{titles[link[1]]}](", markdown)  # fmt: skip


def on_page_content(html: str, **_others: Any) -> str:
    """Options in text are kept in one line: a line could end after the first of their hyphens. The button beside a
    console copies the commands alone."""
    html = CONSOLE.sub(
        lambda each: f'<div class="highlight" data-copy="{escape(commands_of(each[1]))}">{each[1]}', html
    )
    return re.sub(r"<code>(-[\w-]{1,30})</code>", r'<code class="option">\1</code>', html)


def commands_of(console: str) -> str:
    """What is typed in a console, from its HTML: lines after a prompt, and those that continue them."""
    typed: list[str] = []
    for line in unescape(re.sub("<[^>]*>", "", console)).splitlines():
        if line.startswith("$ "):
            typed.append(line.removeprefix("$ "))
        elif typed and typed[-1].endswith("\\"):
            typed.append(line)
    return "\n".join(typed)


def titled_pages(entries: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Each page of a part of the navigation, and its title."""
    for entry in entries:
        for title, pages in entry.items():
            if isinstance(pages, str):
                yield pages, title
            else:
                yield from titled_pages(pages)


def root_pages() -> dict[str, str]:
    """The documents of the root; from there `docs/` is the folder of the site."""
    pages = {}
    for name, site_name in ROOT_PAGES.items():
        text = (ROOT / name).read_text()
        pages[site_name] = text.replace("](docs/", "](") if name.endswith(".md") else f"# License\n\n{fenced(text)}"
    return pages


def notebook_pages() -> dict[str, str]:
    """The notebooks of `docs/notebooks`: Markdown cells as they are, and code cells as code."""
    pages = {}
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        texts = (("".join(cell["source"]), cell["cell_type"]) for cell in cells)
        body = "\n\n".join(text if kind == "markdown" else fenced(text, "python") for text, kind in texts)
        title, _, rest = body.partition("\n")
        link = f"[Download this notebook]({path.name}), and run it with Jupyter."
        pages[f"notebooks/{path.stem}.md"] = f"{title}\n\n{link}\n{rest}\n"
    return pages


def example_files() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.py"))


def examples_page() -> str:
    """The files of `examples/`, for readers who have no clone."""
    sections = (f"## {path.name}\n\n{fenced(path.read_text(), 'python')}" for path in example_files())
    return page("Examples", EXAMPLES, sections)


def zipped_examples() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as held:
        for path in example_files():
            held.write(path, f"examples/{path.name}")
    return archive.getvalue()


def reference_pages() -> dict[str, str]:
    """The reference, made from declarations."""
    pages = {
        "reference/commands.md": page("Commands", COMMANDS, command_sections()),
        "reference/python.md": page("Python", PYTHON, python_sections()),
        "reference/operations.md": page("Operations", OPERATIONS, doc_sections(sorted(TABLE))),
        "reference/passes.md": page("Passes", PASSES, doc_sections(pass_names())),
        "reference/rules.md": page("Rules", fenced(irc.doc("rules")), doc_sections(RULES)),
        "reference/codes.md": page("Error codes", CODES_TEXT, doc_sections(CODES)),
    }
    for name in LISTS:
        pages[f"reference/{name}.md"] = page(name.capitalize(), f"`irc doc {name}`: {TOPICS[name]}.",
                                             [fenced(irc.doc(name))])  # fmt: skip
    return pages


EXAMPLES = """The files that the commands of these pages use. A clone has them, and so has [examples.zip](examples.zip),
to be unpacked where the commands are typed."""
COMMANDS = "What `irc COMMAND --help` prints. The options of all commands over a model are at the end of each."
PYTHON = "The public functions and classes of the package `irc`; [stability](../stability.md) says what is kept."
OPERATIONS = "`irc doc NAME` prints one of these."
PASSES = "A pipeline is a list of passes with their options, such as `fold,cse,fuse{policy=none}`."
CODES_TEXT = "Every error has a code that does not change, and an exit status. `irc explain CODE` prints its page."


def page(title: str, text: str, sections: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", text, *sections]) + "\n"


def fenced(text: str, language: str = "text") -> str:
    return f"````{language}\n{text.rstrip()}\n````"


def doc_sections(names: Iterable[str]) -> Iterator[str]:
    """What `irc doc NAME` prints of each; a source at its end is highlighted."""
    for name in names:
        text = irc.doc(name)
        source = re.search(r"^(?:body|type rule) \(.*\):\n\n", text, re.MULTILINE)
        yield f"## {name}"
        if source is None:
            yield fenced(text, "{.text .prose}")
        else:
            yield fenced(text[: source.end()], "{.text .prose}")
            yield fenced(text[source.end() :], "python")


def command_sections() -> Iterator[str]:
    """The help of each command, in the order of `irc --help`."""
    for purpose, names in PURPOSES.items():
        for name in names:
            context = click.Context(cli.commands[name], info_name=f"irc {name}", max_content_width=CONSOLE_WIDTH,
                                    terminal_width=CONSOLE_WIDTH)  # fmt: skip
            yield f"## irc {name}"
            yield f"{purpose}."
            yield fenced(cli.commands[name].get_help(context))


def python_sections() -> Iterator[str]:
    """The signature and the docstring of each public name."""
    for name in irc.__all__:
        thing = getattr(irc, name)
        if callable(thing):
            yield f"## irc.{name}"
            yield fenced(signature_of(name, inspect.signature(thing)), "python")
            yield inspect.cleandoc(thing.__doc__ or "")


def signature_of(name: str, signature: inspect.Signature) -> str:
    """One line where it fits; else a line for each parameter."""
    parts, is_keyword = [], False
    for each in signature.parameters.values():
        is_keyword |= each.kind is each.VAR_POSITIONAL
        if each.kind is each.KEYWORD_ONLY and not is_keyword:
            parts, is_keyword = [*parts, "*"], True
        parts.append(parameter_text(each))
    returned = "" if signature.return_annotation in (signature.empty, None) else f" -> {signature.return_annotation}"
    line = f"irc.{name}({', '.join(parts)}){returned}"
    if len(line) <= CONSOLE_WIDTH:
        return line
    return "\n".join([f"irc.{name}(", *(f"    {part}," for part in parts), f"){returned}"])


def parameter_text(parameter: inspect.Parameter) -> str:
    """A parameter as its declaration has it, but a default that is no literal as `...`."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = repr(parameter.default)
    return f"{text} = {'...' if default.startswith('<') else default}"

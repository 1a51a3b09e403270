"""The cache of compiled programs on disk: what a backend's passes and emitter make of a module, kept by its content.

`compiled_code` takes code from the cache, or compiles it and adds it. Entries are folders of compiled code
(`irc.driver.compiled_folders`) in a store that only this user may write, since artefacts in it are Python that is run.

`IRC_CACHE` is the store's folder, or "off"; by default it is `irc-compiler` in `XDG_CACHE_HOME` or `~/.cache`.
`IRC_CACHE_BYTES` limits all entries together; those that were not used for the longest time are removed when one is
added, and when a process first uses the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from irc.diagnostics import IrcError, fail
from irc.driver.compiled_folders import StoredCode, fill_folder, open_folder
from irc.driver.content_keys import content_key, content_of, named_files
from irc.driver.models import Backend, Settings, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.runners import Runner, runner_of, write_code
from irc.driver.store import Lease, Store
from irc.module import Module
from irc.partial import TemporaryFolder
from irc.user_code import warn_caller
from irc.user_files import files_of

FOLDER, BYTES = "IRC_CACHE", "IRC_CACHE_BYTES"
OFF = ("off", "0")
MOST_BYTES = 4 << 30
KEY = "[0-9a-f]{64}"  # a name that content_key gives
SHRUNK: set[tuple[Path, int | None]] = set()  # folders, with the limit that this process has reduced them to


@dataclass(frozen=True)
class CompiledCode:
    """Code that runs a module, and its files; `module` gives the module after all passes, for which it runs them if the
    code was in the cache."""

    runner: Runner
    stored: StoredCode
    module: Callable[[], Module]


def compiled_code(imported: Module, backend: Backend, pipeline: str | None, settings: Settings,
                  called: Mapping[str, str], *, cached: bool = True) -> CompiledCode:  # fmt: skip
    """The code of a module, by a pipeline, by default the backend's; `called` is what callers know its arguments by.
    Unless it is `cached`, the cache is neither read nor added to."""
    text = pipeline or find_backend(backend).PIPELINE
    store = code_store() if cached and _may_be_kept(imported, text, settings) else None
    lowered = partial(_lowered, imported, text, backend, settings)
    if store is None:
        return _uncached(lowered(), backend, settings, called)
    device = settings.context(backend).device
    key = content_key(content_of(imported), text, settings, device, ("code", backend))
    kept = _kept(store, key, backend, called, lowered)
    _shrink_once(store)
    if kept is not None:
        return kept
    module = lowered()
    if store.most_bytes is not None and module.weight_bytes <= store.most_bytes // 2:
        kept = _added(store, key, module, backend, settings, called)
    return _uncached(module, backend, settings, called) if kept is None else kept


def _shrink_once(store: Store) -> None:
    """Keep to the limit at the first use of the cache by this process, too: it may be lower than when entries were
    added, and a warm start adds none."""
    use = store.folder, store.most_bytes
    if use not in SHRUNK:
        SHRUNK.add(use)
        store.shrink()


def _added(store: Store, key: str, module: Module, backend: Backend, settings: Settings,
           called: Mapping[str, str]) -> CompiledCode | None:  # fmt: skip
    """Add the code of a module to the cache; None where that fails, because the disk is full for example."""
    try:
        with store.adding(key) as new:
            write_code(module, new, backend, settings)
            fill_folder(new, module, backend, {})
        kept = _kept(store, key, backend, called, lambda: module)
        store.shrink()
        return kept
    except OSError:
        return None
    except IrcError as error:
        if error.code != "file.unreadable":
            raise
        return None


@dataclass(frozen=True)
class CacheReport:
    """The cache: its folder, None where it is off, its entries with their bytes, and the limit of these. `removed`
    entries were removed."""

    folder: str | None = None
    entries: int = 0
    bytes: int = 0
    most_bytes: int = 0
    removed: int = 0
    schema: str = "irc.cache/1"


def cache(*, clear: bool = False) -> CacheReport:
    """The cache of compiled programs; with `clear` all entries that no process is using are removed first.

    Raises `usage.value` where IRC_CACHE_BYTES is no number.
    """
    store = code_store()
    if store is None:
        return CacheReport()
    removed = store.shrink(0) if clear else 0
    entries = store.entries()
    return CacheReport(str(store.folder), len(entries), sum(entry.bytes for entry in entries), store.most_bytes or 0,
                       removed)  # fmt: skip


def code_store() -> Store | None:
    """The store that the environment names; None where it is off, or where others may have written what is in it, of
    which a warning is given. Raises `usage.value`."""
    place, limit = os.environ.get(FOLDER), os.environ.get(BYTES)
    if place in OFF:
        return None
    if limit is not None and not limit.isdecimal():
        raise fail("usage.value", f"{BYTES} is {limit!r}", expected="a number of bytes")
    beside = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(place or os.path.join(beside, "irc-compiler"))
    try:
        store = Store(folder, most_bytes=MOST_BYTES if limit is None else int(limit), private=True, pattern=KEY)
        reason = store.why_not_private()
    except (IrcError, OSError) as error:
        reason = error.diagnostics[0].message if isinstance(error, IrcError) else str(error.strerror)
    if reason is None:
        return store
    warn_caller(f"programs are compiled without the cache: {folder}: {reason}; {FOLDER}=off switches it off")
    return None


def _may_be_kept(imported: Module, pipeline: str, settings: Settings) -> bool:
    """Whether the code depends on nothing but what its key has, and nothing else is to be shown: Python files
    of users may read anything, and what passes note is not kept."""
    needs_more = settings.remarks is not None or settings.show_note is not None or settings.dump_after
    return not (needs_more or settings.verify_each or settings.loads or named_files(pipeline) or files_of(imported))


def _lowered(imported: Module, pipeline: str, backend: Backend, settings: Settings) -> Module:
    return run_pipeline(imported, pipeline, backend, settings)[0]


def _kept(store: Store, key: str, backend: Backend, called: Mapping[str, str], module: Callable[[], Module]
          ) -> CompiledCode | None:  # fmt: skip
    """An entry of the cache, of the code of a module; None where there is none. One that is damaged is removed."""
    lease: Lease | None = store.find(key)
    if lease is None:
        return None
    try:
        opened = open_folder(lease.path)
        runner = runner_of(opened.main, backend, lease.path, called, kept=lease)
        return CompiledCode(runner, opened.code(lease), module)
    except (IrcError, OSError, ImportError, SyntaxError):
        pass  # the traceback holds the lease until here
    del lease
    store.remove(key)
    return None


def _uncached(module: Module, backend: Backend, settings: Settings, called: Mapping[str, str]) -> CompiledCode:
    kept = TemporaryFolder()
    write_code(module, kept.path, backend, settings)
    stored = StoredCode.of_folder(kept.path, module, kept)
    return CompiledCode(runner_of(module.main, backend, kept.path, called, kept=kept), stored, lambda: module)

"""An audit hook for every Python process that is started with this folder in PYTHONPATH and AUDIT in the environment.

AUDIT is a file of JSON: {"read": [folders], "write": [folders], "report": file, "swap": {name: [path, target]}}. What
is opened, written, executed or unpickled outside of these folders is rejected, and added to the report, a line each.
`swap` replaces a file by a link at the moment when a file of that name is opened: after all checks that came before.
"""

from __future__ import annotations

import json
import os
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events with paths among their arguments, all of which they change.
CHANGING = {
    "os.chmod": 1, "os.chown": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1,
    "os.symlink": 2, "os.truncate": 1, "os.utime": 1, "shutil.rmtree": 1, "shutil.move": 2, "os.setxattr": 1,
}  # fmt: skip
BY_FOLDER = ("os.remove", "os.rmdir", "os.mkdir")  # may have an open folder as their last argument
NEVER = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn", "socket.connect")


def install(settings: dict) -> None:
    report = os.open(settings["report"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    readable = [os.path.realpath(folder) for folder in (*settings["read"], *settings["write"])]
    writable = [os.path.realpath(folder) for folder in settings["write"]]
    swaps = {name: tuple(paths) for name, paths in settings.get("swap", {}).items()}

    def inside(path: object, folders: list[str], follow: bool = True) -> bool:
        """Whether what a path names, or with `follow` what a link there leads to, lies in one of the folders."""
        folder, name = os.path.split(os.fsdecode(path))
        real = os.path.realpath(os.path.join(folder, name) if follow else folder)
        real = real if follow else os.path.join(real, name)
        return any(real == each or real.startswith(each.rstrip("/") + "/") for each in folders)

    def refuse(event: str, *what: object) -> None:
        os.write(report, (json.dumps([event, *map(str, what)]) + "\n").encode())
        raise PermissionError(f"the audit hook rejects {event} {what}")

    def asked_by(module: str) -> bool:
        frame = sys._getframe()
        while frame is not None and frame.f_globals.get("__name__") != module:
            frame = frame.f_back
        return frame is not None

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            name = os.path.basename(os.fsdecode(path))
            if name in swaps:
                place, target = swaps.pop(name)
                os.rename(place, f"{place}.before")
                os.symlink(target, place)
            writes = bool(flags & WRITING if mode is None else set(mode) & set("wax+"))
            folders = [*writable, os.devnull] if writes else readable
            if not inside(path, folders, follow=not flags & os.O_NOFOLLOW):
                refuse("write" if writes else "open", path)
        elif event in CHANGING:
            paths = arguments[: CHANGING[event]]
            for path in paths[event == "os.symlink" :]:  # what a link leads to is not changed
                where = f"/proc/self/fd/{arguments[-1]}" if event in BY_FOLDER and arguments[-1] > 0 else ""
                if not isinstance(path, int) and not inside(os.path.join(where, os.fsdecode(path)), writable, False):
                    refuse(event, path)
        elif event == "subprocess.Popen":
            if asked_by("ctypes.util"):  # PyTorch 2.15 has it look for libdl, and does without
                raise PermissionError("the audit hook asks no linker where a library is")
            if os.path.realpath(arguments[0]) != os.path.realpath(sys.executable):
                refuse(event, *arguments[:2])
        elif event.startswith(NEVER):
            refuse(event, *arguments)

    sys.addaudithook(hook)


if "AUDIT" in os.environ:
    with open(os.environ["AUDIT"]) as file:
        install(json.load(file))

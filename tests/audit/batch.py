"""Run commands of `irc` one after another in one process: JSON lists of arguments on stdin, results on stdout."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from tests.command_line import irc_here

results = [irc_here(*arguments, folder=Path(sys.argv[1])) for arguments in json.load(sys.stdin)]
sys.stdout.write(json.dumps([dataclasses.asdict(result) for result in results]))

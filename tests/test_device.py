"""Devices: the files that describe GPUs, and the option `--device`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from irc.backends.triton import TARGETS
from irc.device import BUILT_IN, DEFAULT_DEVICE, built_in, device_of, file_text, find_device, parse_device
from irc.diagnostics import IrcError
from irc.driver import Settings
from irc.dtypes import BF16, F32, I8
from tests.command_line import EXAMPLES, irc_here

ROOT = Path(__file__).resolve().parent.parent
SCORES = f"{EXAMPLES}/block.py:scores"


def test_every_file_is_a_device_and_every_target_has_one() -> None:
    assert {path.stem for path in (ROOT / "irc" / "devices").iterdir()} == set(BUILT_IN)
    assert {built_in(name).architecture for name in BUILT_IN} == set(TARGETS)
    for target in TARGETS:
        assert device_of(None, target).architecture == target
    assert device_of(None).name == device_of(None, "cpu").name == DEFAULT_DEVICE
    assert device_of("h200", "sm_80").name == "h200"


@pytest.mark.parametrize("name", BUILT_IN)
def test_figures_of_a_device_are_consistent(name: str) -> None:
    """What holds for every GPU; a figure with a wrong exponent does not pass."""
    device = find_device(name)
    assert device.multiprocessors * device.threads * device.thread_registers >= device.registers
    assert device.program_shared_bytes <= device.shared_bytes
    assert 1e12 < device.memory_rate < device.l2_rate < 1e14
    assert 1e13 < device.vector_peak(F32) < device.matrix_peak(BF16) == device.matrix["f16"] < device.matrix_peak(I8)
    assert 2 <= device.memory_rate / 1e12 <= 8 and 1e-6 <= device.launch_seconds < 1e-5
    assert all(text.strip() for text in device.sources)


# A text in h100.toml, what it becomes, the line of the error (that of the text where 0), and words of the message.
MISTAKES = (
    ("number = 132", "number = 132.5", 0, "whole number above 0"),
    ("number = 132", "number = true", 0, "whole number above 0"),
    ("number = 132", "number = -1", 0, "`number` is -1"),
    ("number = 132", "", "[multiprocessors]", "`number` in [multiprocessors] is missing"),
    ("number = 132", "number = 132\nsms = 132", "sms", "`sms` in [multiprocessors]"),
    ("bytes_per_second = 3.35e12", 'bytes_per_second = "fast"', 0, "number above 0"),
    ("bytes_per_second = 3.35e12", "bytes_per_second = inf", 0, "number above 0"),
    ("bytes_per_second = 3.35e12", "bytes_per_second = 3.35e", 0, "not TOML"),
    ("bytes_per_second = 3.35e12", "bytes_per_second = 1\nbytes_per_second = 2", "bytes_per_second = 2", "not TOML"),
    ("f32 = 66.9e12", "", "[vector]", "`f32` in [vector] is missing"),
    ("f32 = 66.9e12", "fp32 = 66.9e12", "fp32", "no element type"),
    ("f32 = 66.9e12", "f32 = 66.9e12\nf63 = 0", "f63", "did you mean f6"),
    ("memory = 0.9", "memory = 90", 0, "from 0 to 1"),
    ('architecture = "sm_90"', "architecture = 90", 0, "a text"),
    ('architecture = "sm_90"', "", None, "`architecture` is missing"),
    ("[matrix]", "[matrices]", "[matrices]", "`matrices` is no figure"),
)


@pytest.mark.parametrize(("text", "instead", "at", "words"), MISTAKES)
def test_mistakes_in_a_device_file_are_named(tmp_path: Path, text: str, instead: str, at: str | int | None,
                                             words: str) -> None:  # fmt: skip
    whole = re.sub(rf"^{re.escape(text)}", instead, file_text("h100"), count=1, flags=re.M)
    assert whole != file_text("h100")
    path = tmp_path / "mine.toml"
    path.write_text(whole)
    done = irc_here("kernels", SCORES, "--device", str(path), folder=tmp_path)
    assert done.code == 3 and "error[device.file]" in done.err and words in done.err, done.err
    if at is not None:
        marker = instead if at == 0 else at
        line = next(number for number, each in enumerate(whole.splitlines(), 1) if each.startswith(str(marker)))
        assert f"mine.toml:{line}" in done.err, done.err


@pytest.mark.parametrize("name", ["h1000", "", "sm_42", "cuda:0", "h100.tml"])
def test_unknown_devices_are_named(tmp_path: Path, name: str) -> None:
    done = irc_here("kernels", SCORES, "--device", name, folder=tmp_path)
    assert done.code == 2 and "error[device.unknown]" in done.err and "mi300x" in done.err, done.err


def test_files_that_are_no_devices(tmp_path: Path) -> None:
    done = irc_here("kernels", SCORES, "--device", "none.toml", folder=tmp_path)
    assert done.code == 3 and "file.missing" in done.err
    for content in (b"", b"\xff\xfe\0", b"[[[", b"name = 'x'\n" * 3, b"#" * (2 << 20), b"vector = 3"):
        (tmp_path / "mine.toml").write_bytes(content)
        done = irc_here("kernels", SCORES, "--device", "mine.toml", folder=tmp_path)
        assert done.code == 3 and "device.file" in done.err, (content[:20], done.err)


def test_a_device_of_your_own_gives_the_estimates(tmp_path: Path) -> None:
    slow = file_text("h100").replace("bytes_per_second = 3.35e12", "bytes_per_second = 3.35e9")
    (tmp_path / "slow.toml").write_text(slow.replace("NVIDIA H100 SXM5 80 GB", "Slow <one>"))

    def estimated(*options: str) -> float:
        sizes = ("--dim", "M=1024", "--dim", "N=1024")
        done = irc_here("experiment", SCORES, *sizes, "-p", "base=default", *options, "--json", folder=tmp_path)
        return float(json.loads(done.out)["cases"][0]["measured"]["base"]["estimated_microseconds"])

    by_file, built_in_one = estimated("--device", "slow.toml"), estimated("--device", "h100")
    assert by_file - 2 > 10 * (built_in_one - 2) > 0  # a launch takes 2 us on each
    assert estimated() == estimated("--device", "sm_90") == estimated("--target", "sm_90")
    assert estimated("--target", "sm_80") == estimated("--device", "a100") != estimated()
    page = tmp_path / "page.html"
    irc_here("experiment", SCORES, "-p", "base=default", "--device", "slow.toml", "--html", str(page), folder=tmp_path)
    assert "(sm_90): 132 multiprocessors, 0.00335 TB/s" in page.read_text() and "<one>" not in page.read_text()


def test_passes_have_the_device(tmp_path: Path) -> None:
    assert Settings().context("triton").device is find_device()
    assert Settings(target="gfx942").context("triton").device.multiprocessors == 304
    assert Settings(device="a100", target="sm_90").context("triton").device.name == "a100"
    path = tmp_path / "mine.toml"
    path.write_text(file_text("b200").replace("number = 148", "number = 7"))
    assert Settings(device=str(path)).context("triton").device.multiprocessors == 7
    with pytest.raises(IrcError, match=r"device\.unknown"):
        Settings(device="b300").context("triton")


def test_pages_of_devices(tmp_path: Path) -> None:
    listed = irc_here("doc", "devices", folder=tmp_path).out
    for name in BUILT_IN:
        assert re.search(rf"^{name} +\S.*{built_in(name).architecture}", listed, re.M)
        page = irc_here("doc", name, folder=tmp_path).out
        assert parse_device(page, name).summary == built_in(name).summary


@pytest.mark.parametrize("text", [f"a = 1{'0' * 5000}", "a = " + "[" * 100_000], ids=["digits", "brackets"])
def test_texts_without_end(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(IrcError) as error:
        find_device(str(tmp_path / "mine.toml"))
    assert error.value.code == "device.file"

"""Results, messages and progress of the command line; the silence of the library."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from inputs import write_pairs

from softctm.cli import main
from softctm.errors import InputError, OutputError
from softctm.progress import SILENT
from softctm.terminal.console import ConsoleLog, ConsoleProgress, log_shown, show
from softctm.terminal.streams import GuardedStream, guarded_streams

TEST = Path(__file__).resolve().parents[1]
SOURCE = TEST.parent / "src"

logger = logging.getLogger("softctm.somewhere")


def failing(error: Exception) -> io.TextIOWrapper:
    """A UTF-8 stream whose every flush fails."""

    class Failing(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise error

    return io.TextIOWrapper(io.BufferedWriter(Failing()), encoding="utf-8")


NO_SPACE = OSError(28, "No space left on device")


# --- streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_stream_cannot_encode_is_escaped(encoding: str) -> None:
    raw = io.BytesIO()
    stream = GuardedStream(io.TextIOWrapper(raw, encoding=encoding))
    text = "σ µ … 界 " + os.fsdecode(b"\xff")
    stream.write(text)
    stream.flush()
    assert raw.getvalue() == text.encode(encoding, "backslashreplace")
    assert stream.error is None


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [None, closed(), failing(NO_SPACE), failing(BrokenPipeError())],
    ids=["none", "closed", "full", "gone"],
)
def test_a_stream_that_cannot_be_written_raises_nothing_and_says_why(stream: io.TextIOBase | None) -> None:
    guarded = GuardedStream(stream)  # type: ignore[arg-type]
    for _ in range(3):
        assert guarded.write("x" * 10_000) == 10_000
        guarded.flush()
    assert guarded.error is not None


def test_the_streams_are_as_before_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with guarded_streams():
        print("a")
        print("b", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("a\n", "b\n")


def test_a_result_that_is_only_printed_must_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", failing(NO_SPACE))
    show("of which a file tells as well")
    with pytest.raises(OutputError, match=r"the result cannot be written to stdout \(No space"):
        show("the only copy", is_result=True)


def test_a_reader_that_goes_away_has_what_it_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", failing(BrokenPipeError()))
    show("the only copy", is_result=True)


def test_files_do_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what a library prints from C would end up in a result."""
    code = (
        "import os\nfrom softctm.terminal.streams import guarded_streams\n"
        "with guarded_streams():\n"
        "    file = open('result', 'w')\n"
        "    for number in (1, 2):\n"
        "        os.write(number, b'noise')\n"
        "    file.write('result')\n    file.close()\n"
    )
    command = f'"{sys.executable}" -c "$0" >&- 2>&- <&-'
    subprocess.run(
        ["bash", "-c", command, code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True
    )
    assert (tmp_path / "result").read_text() == "result"


# --- the log ---------------------------------------------------------------------------------------------


def test_info_is_for_stdout_and_all_else_for_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with log_shown() as log:
        logger.debug("detail")
        logger.info("100 %% of %s", "it")
        logger.warning("beware")
        logger.error("failed")
        log.show_from("debug")
        logger.debug("detail")
    logger.error("afterwards")
    out, err = capsys.readouterr()
    assert out == "100 % of it\n"
    assert err == "warning: beware\nerror: failed\ndebug: detail\n"


def test_a_traceback_only_where_wanted_and_before_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with log_shown() as log:
        for log.tracebacks in (False, True):
            try:
                raise RuntimeError("a bug")
            except RuntimeError as error:
                logger.error("it failed", exc_info=error)
            lines = capsys.readouterr().err.splitlines()
            assert lines[-1] == "error: it failed"
            assert (lines[0] == "Traceback (most recent call last):") == log.tracebacks
            assert (len(lines) > 1) == log.tracebacks


def test_a_message_is_one_line_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with log_shown():
        logger.warning("%s", "pair a\nb\x1b[31m: fünf\u3000µm, %d")
        logger.info("%s", "c\r\nd")
    out, err = capsys.readouterr()
    assert err == "warning: pair a\\nb\\x1b[31m: fünf\u3000µm, %d\n"
    assert out == "c\\r\\nd\n"


def test_a_message_with_a_wrong_format_is_still_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleLog().emit(logging.LogRecord("softctm", logging.WARNING, __file__, 1, "%d pairs", ("many",), None))
    assert capsys.readouterr().err == "warning: %d pairs\n"


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    ("level", "lines"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")]
)
def test_the_level_is_chosen_before_or_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, level: str, lines: str
) -> None:
    def run(args: Namespace) -> int:
        for name in ("debug", "info", "warning"):
            getattr(logger, name)(f"{name} message")
        raise InputError("error message")

    monkeypatch.setattr("softctm.commands.folds.run", run)
    words, chosen = ["folds", "folds.json", "--data", "d"], ["--log-level", level]
    assert main([*chosen, *words] if place == "before" else [*words, *chosen]) == 3
    out, err = capsys.readouterr()
    assert {line[0] for line in (out + err).splitlines()} == set(lines)


def test_the_library_is_silent_unless_logging_is_configured(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from softctm.jobs.job_options import JobOptions\nfrom softctm.jobs.pairs import run_job\n"
        "if sys.argv[2] == 'configured':\n    import logging\n    logging.basicConfig(level='INFO')\n"
        "from test_pairs import FakeDetector\nfolder = Path(sys.argv[1])\n"
        "run_job(folder / 'in', folder / 'out', JobOptions(allow_partial=True), FakeDetector())\n"
    )
    (write_pairs(tmp_path / "in", 2) / "images/cell_patches/001.png").write_bytes(b"")
    path = os.pathsep.join(map(str, (SOURCE, TEST, TEST / "jobs")))
    shown = {}
    for how in ("plain", "configured"):
        shown[how] = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), how],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": path},
        )
    assert (shown["plain"].stdout, shown["plain"].stderr) == ("", "")
    assert "WARNING:softctm.jobs.pairs:pair 001: " in shown["configured"].stderr
    assert shown["configured"].stdout == ""


# --- progress --------------------------------------------------------------------------------------------


def test_lines_count_and_name_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with log_shown(), ConsoleProgress().task(4, "epoch", "fold 1", done=2) as task:
        task.step("loss 0.5")
        task.step("loss 0.4")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("fold 1: epoch 3/4 loss 0.5, about ")
    assert first.endswith(" s left")
    assert second == "fold 1: epoch 4/4 loss 0.4"


def test_steps_without_a_message_give_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("softctm.terminal.console.time.monotonic", lambda: next(clock))
    with log_shown():
        assert list(ConsoleProgress().over(iter("abcdefg"), "patch", total=7)) == list("abcdefg")
    assert capsys.readouterr().out.splitlines() == [
        "patch 3/7, about 40 s left",
        "patch 6/7, about 10 s left",
    ]


def test_no_progress_above_info_or_where_nothing_is_injected(capsys: pytest.CaptureFixture[str]) -> None:
    with log_shown() as log:
        assert sum(SILENT.over([1, 2], "pair")) == 3
        log.show_from("warning")
        assert sum(ConsoleProgress().over([1, 2], "pair")) == 3
    assert capsys.readouterr() == ("", "")


def test_items_without_a_length_need_a_total() -> None:
    with pytest.raises(TypeError, match="total"):
        next(SILENT.over(iter([1]), "pair"))

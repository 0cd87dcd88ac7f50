"""What a user can get wrong, through the command: exit code, and one last line with culprit and remedy."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from inputs import entry, patch, stack_paths, write_metadata, write_pairs
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from softctm import cli

CELL, TISSUE = "images/cell_patches", "images/tissue_patches"


def network(channels: int, classes: int, bias: float = 0.0) -> onnx.ModelProto:
    """A 1 × 1 convolution of zeros: every pixel gives `bias`."""
    weights = numpy_helper.from_array(np.zeros((classes, channels, 1, 1), np.float32), "w")
    biases = numpy_helper.from_array(np.full(classes, bias, np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w", "b"], ["out"])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, 1024, 1024])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", classes, 1024, 1024])],
        [weights, biases],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_weights(
    folder: Path, tissue: onnx.ModelProto | None = None, cell: onnx.ModelProto | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(tissue or network(3, 2), folder / "tissue.onnx")
    onnx.save(cell or network(5, 3, 1 / 3), folder / "cell_fold0.onnx")
    return folder


def predict(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> tuple[int, str, str]:
    """Exit code, last line of stderr, all of stderr."""
    if not (folder / "w").exists():
        write_weights(folder / "w")
    arguments = ["--output", str(folder / "out"), "--weights", str(folder / "w"), "--device", "cpu"]
    code = cli.main(["predict", "--input", str(folder / "in"), *arguments, "--views", "1", *more])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.err.splitlines()[-1] if captured.err else "", captured.err


def test_the_networks_of_these_tests_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "in", 1)
    assert predict(capsys, tmp_path) == (0, "", "")


# --- the input as a whole --------------------------------------------------------------------------------


def empty(d: Path) -> None:
    d.mkdir()


def unmatched(d: Path) -> None:
    write_pairs(d, 1)
    (d / CELL / "000.png").rename(d / CELL / "other.png")


def stacked(d: Path, cell_rows: int, tissue_rows: int) -> None:
    pixels = np.concatenate([patch(index) for index in range(3)])
    Image.fromarray(pixels[:cell_rows]).save(stack_paths(d)["cell"])
    Image.fromarray(pixels[:tissue_rows]).save(stack_paths(d)["tissue"])
    write_metadata(d, [entry()] * 3)


def no_metadata(d: Path) -> None:
    (write_pairs(d, 1) / "metadata.json").unlink()


def malformed_metadata(d: Path) -> None:
    (write_pairs(d, 1) / "metadata.json").write_text("[{]")


WHOLE: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "missing folder": (lambda d: None, ("/in does not exist", "check --input")),
    "empty folder": (empty, ("/in is empty", f"expected {CELL}/")),
    "unmatched stems": (unmatched, (CELL, TISSUE, "must share their name")),
    "unequal stacks": (lambda d: stacked(d, 2048, 3072), ("cells.tif holds 2", "tissues.tif 3")),
    "height of a stack": (lambda d: stacked(d, 2000, 2000), ("cells.tif", "2000, is not a multiple of 1024")),
    "missing metadata": (no_metadata, ("metadata.json: is missing", "add it")),
    "malformed metadata": (malformed_metadata, ("metadata.json: is not valid JSON", "correct it")),
    "long metadata": (
        lambda d: write_metadata(write_pairs(d, 1), [entry()] * 2),
        ("metadata.json: has 2 entries for 1 pair;", "remove"),
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_input_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    spoil, parts = WHOLE[case]
    spoil(tmp_path / "in")
    code, line, everything = predict(capsys, tmp_path)
    assert code == 3
    assert line.startswith("error: ")
    assert everything.count("\n") == 1
    for part in parts:
        assert part in line
    assert not (tmp_path / "out" / "cell_classification.json").exists()


# --- one pair of three -----------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1 << 20))),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg_cell(d: Path, cut: int | None = None, content: bytes | None = None) -> None:
    (d / CELL / "001.png").unlink()
    path = d / CELL / "001.jpg"
    Image.fromarray(patch(1)).save(path)
    path.write_bytes(path.read_bytes()[:cut] if content is None else content)


def entries(second: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry(0), second, entry(2)]


def with_box(kind: str, key: str, value: Any) -> dict[str, Any]:
    metadata = entry(1)
    metadata[kind][key] = value
    return metadata


PAIR: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "missing partner": (
        lambda d: (d / TISSUE / "001.png").unlink(),
        (f"no tissue image 001.* in {TISSUE}", "add it"),
    ),
    "truncated JPEG": (lambda d: jpeg_cell(d, 9000), (f"{CELL}/001.jpg", "copy or export it again")),
    "zero bytes": (lambda d: jpeg_cell(d, 0), (f"{CELL}/001.jpg", "is empty (0 bytes)", "copy it again")),
    "text named .jpg": (
        lambda d: jpeg_cell(d, content=b"hello"),
        (f"{CELL}/001.jpg", "is not a JPEG, PNG, TIFF or BMP image", "replace it"),
    ),
    "wrong size": (
        lambda d: Image.fromarray(patch(1, (512, 1024))).save(d / TISSUE / "001.png"),
        (f"{TISSUE}/001.png", "is 1024 × 512 pixels", "must be 1024 × 1024"),
    ),
    "bomb": (
        lambda d: (d / CELL / "001.png").write_bytes(png_header(100_000, 100_000)),
        (f"{CELL}/001.png", "far larger than 1024 × 1024"),
    ),
    "transparency": (
        lambda d: Image.fromarray(np.zeros((1024, 1024, 4), np.uint8)).save(d / CELL / "001.png"),
        (f"{CELL}/001.png", "transparent", "without alpha"),
    ),
    "NaN": (
        lambda d: write_metadata(d, entries(with_box("cell", "x_start", float("nan")))),
        ("cell.x_start in its metadata is nan, not a number", "correct it"),
    ),
    "text for a number": (
        lambda d: write_metadata(d, entries(with_box("tissue", "y_end", "12"))),
        ("tissue.y_end in its metadata is '12', not a number", "correct it"),
    ),
    "cell outside": (
        lambda d: write_metadata(d, entries(entry(-9))),
        ("does not lie inside the tissue patch", "correct its metadata"),
    ),
    "tissue of no width": (
        lambda d: write_metadata(d, entries(with_box("tissue", "x_end", 100))),
        ("the tissue box has no extent", "correct its metadata"),
    ),
    "nothing in the entry": (lambda d: write_metadata(d, entries({})), ("neither boxes", "add one of them")),
}


@pytest.mark.parametrize("case", PAIR)
def test_one_bad_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    spoil, parts = PAIR[case]
    spoil(write_pairs(tmp_path / "in", 3))
    code, line, everything = predict(capsys, tmp_path)
    assert code == 7
    assert line.startswith("error: 1 of 3 pairs failed and are missing from ")
    told = next(text for text in everything.splitlines() if text.startswith("warning: pair 001: "))
    for part in parts:
        assert part in told
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert f"warning: {record['failures'][0]['error']}" == told
    assert [pair["index"] for pair in record["pairs"] if "error" not in pair] == [0, 2]
    assert (tmp_path / "out" / "cell_classification.json").exists()


def test_short_metadata_serves_the_first_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_metadata(write_pairs(tmp_path / "in", 3), [entry(0), entry(1)])
    code, line, everything = predict(capsys, tmp_path)
    assert code == 7
    assert line.startswith("error: 1 of 3 pairs failed")
    assert "warning: metadata.json: has 2 entries for 3 pairs; the last 1 will fail" in everything
    assert "warning: pair 002: metadata.json has no entry number 2" in everything


# --- networks --------------------------------------------------------------------------------------------


def altered(d: Path) -> None:
    import hand_set_networks

    hand_set_networks.write(d)
    path = d / "cell_fold1.onnx"
    path.write_bytes(path.read_bytes() + b"\0")


def corrupt(d: Path) -> None:
    (write_weights(d) / "cell_fold0.onnx").write_bytes(b"\x08\x08 no network")


def external(d: Path) -> None:
    onnx.save(
        network(5, 3),
        write_weights(d) / "cell_fold0.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


NETWORKS: dict[str, tuple[Callable[[Path], Any], int, tuple[str, ...]]] = {
    "no folder": (lambda d: d.rmdir(), 4, ("/w", "--weights")),
    "no model in it": (lambda d: None, 4, ("/w", "--weights")),
    "corrupt": (corrupt, 4, ("cell_fold0.onnx", "fetch it again")),
    "altered": (altered, 4, ("cell_fold1.onnx", "SHA-256", "fetch it again")),
    "external data": (external, 4, ("cell_fold0.onnx", "another file", "save it")),
    "wrong channels": (lambda d: write_weights(d, cell=network(7, 3)), 4, ("cell_fold0.onnx", "7", "5")),
    "NaN": (lambda d: write_weights(d, cell=network(5, 3, np.nan)), 3, ("cell_fold0.onnx", "not finite")),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    spoil, expected, parts = NETWORKS[case]
    write_pairs(tmp_path / "in", 1)
    (tmp_path / "w").mkdir()
    spoil(tmp_path / "w")
    arguments = ["--output", str(tmp_path / "out"), "--weights", str(tmp_path / "w"), "--device", "cpu"]
    code = cli.main(["predict", "--input", str(tmp_path / "in"), *arguments, "--views", "1"])
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert code == expected
    assert line.startswith("error: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in line


# --- device, options and output --------------------------------------------------------------------------


def test_cuda_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime may have CUDA")
    write_pairs(tmp_path / "in", 1)
    code, line, _ = predict(capsys, tmp_path, "--device", "cuda")
    assert code == 5
    assert "CUDA" in line
    assert "--device cpu" in line


def test_a_subset_of_no_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "in", 1)
    code, line, _ = predict(capsys, tmp_path, "--subset", "train")
    assert code == 2
    assert "--subset train" in line


def test_an_output_that_is_read_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "in", 1)
    (tmp_path / "out").mkdir(mode=0o555)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(30, "Read-only file system")

    # The tests may run as root, whom permissions do not stop.
    monkeypatch.setattr("softctm.storage.files.tempfile.TemporaryFile", refuse)
    code, line, _ = predict(capsys, tmp_path)
    assert code == 6
    assert f"output folder {tmp_path}/out cannot be written to (Read-only file system)" in line
    assert "another output folder" in line

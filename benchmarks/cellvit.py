"""Time CellViT on one field: the network in ONNX Runtime, and the post-processing of a crowded field.

    python -m benchmarks.cellvit [--encoder 256 SAM-B] [--size 1024] [--nuclei 1500] [--threads 2]
                                 [--repeat 3]

Weights are random, which costs the same as trained ones; the nuclei that post-processing gets are drawn.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.nuclei import best_of, drawn_field
from softctm.networks.cellvit import CellViT, CellViTOutput, CellViTSpec
from softctm.networks.nuclei_maps import NormalizedCellViT
from softctm.networks.onnx_export import export_onnx
from softctm.networks.vit import ENCODERS, TOKEN
from softctm.postprocessing.hover import classify_nuclei, separate_nuclei


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cellvit", description=__doc__)
    parser.add_argument(
        "--encoder", nargs="+", choices=sorted(ENCODERS), default=["256", "SAM-B"],
        help="(default: 256 SAM-B)",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=1024, help="side of the field, pixels (default: 1024)")
    parser.add_argument("--nuclei", type=int, default=1500, help="in the field (default: 1500)")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime (default: 2)")
    parser.add_argument("--repeat", type=int, default=3, help="the fastest of so many counts (default: 3)")
    args = parser.parse_args()
    binary, h, v, types = drawn_field(args.nuclei, args.size)

    def decode() -> int:
        return len(classify_nuclei(separate_nuclei(binary, h, v, magnification=40), types))

    decoding = best_of(args.repeat, decode)
    print(
        f"{platform.machine()}, ONNX Runtime {onnxruntime.__version__}, {args.threads} threads, {args.size}²"
    )
    print(f"post-processing of {decode()} nuclei: {decoding:.2f} s")
    image = np.random.default_rng(0).random((1, 3, args.size, args.size), np.float32)
    for encoder in args.encoder:
        session = _session(encoder, args.size, args.threads)
        network = best_of(args.repeat, partial(session.run, None, {"image": image}))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"CellViT-{encoder}: {network:.1f} s a field in the network, {network + decoding:.1f} s in all; "
            f"{network / (network + decoding):.1%} in the network; peak memory so far {peak:.1f} GB"
        )
    return 0


def _session(encoder: str, size: int, threads: int) -> onnxruntime.InferenceSession:
    torch.manual_seed(0)
    network = CellViT(CellViTSpec(encoder)).eval()
    network.encoder.fix_size(size // TOKEN, size // TOKEN)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cellvit.onnx"
        export_onnx(NormalizedCellViT(network), torch.zeros(2, 3, size, size), CellViTOutput._fields, path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    raise SystemExit(main())

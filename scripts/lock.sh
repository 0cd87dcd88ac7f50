#!/usr/bin/env bash
# Pin every package of the images and of the demo, with hashes: requirements.txt (GPU), requirements-cpu.txt.
#
#   make lock                 keeps what is pinned, adds what is missing
#   UPGRADE=1 make lock       takes the newest versions allowed
#
# Both files hold what slides need, and the same ONNX Runtime line, the last one for CUDA 12, so that CPU and GPU agree.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
uv=${UV:-uv}
line="1.26.*"

lock() { # FILE EXTRA PACKAGE
  echo "$3==$line" | "$uv" pip compile --quiet ${UPGRADE:+--upgrade} --generate-hashes --no-emit-index-url \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
    --extra "$2" --extra slides --output-file "$1" pyproject.toml -
}

lock requirements.txt gpu onnxruntime-gpu
lock requirements-cpu.txt cpu onnxruntime

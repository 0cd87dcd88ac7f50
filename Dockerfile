# SoftCTM as a Grand Challenge algorithm. `./build.sh` builds it; `docker build .` gives the same image.
#   --target gpu (default)  onnxruntime-gpu with its own CUDA 12 and cuDNN; falls back to the CPU
#   --target cpu            the small one
#   --build-arg API=exec|invoke  the platform's interface: run once, or serve calls
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG API=exec

# Packages go to a virtual environment without pip, installed from the lock file and nothing else.
FROM ${BASE_IMAGE} AS builder
RUN python -m venv --without-pip /opt/venv

FROM builder AS packages-cpu
COPY requirements-cpu.txt /tmp/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: --no-deps \
    -r /tmp/requirements.txt

FROM builder AS packages-gpu
COPY requirements.txt /tmp/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: --no-deps \
    -r /tmp/requirements.txt

# The program and its default model, readable for whichever user the platform picks; compiled here, because
# nobody can write there later.
FROM builder AS program
COPY LICENSE process.py /opt/app/
COPY model_weights /opt/app/model_weights
COPY src /opt/app/src
RUN chmod -R a+rX /opt/app && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/app/src

FROM ${BASE_IMAGE} AS runtime
LABEL org.opencontainers.image.title="SoftCTM" \
      org.opencontainers.image.description="Finds and names tumor cells in H&E tissue" \
      org.opencontainers.image.licenses="Apache-2.0 (program), CC-BY-NC-4.0 (default model)"
# ONNX Runtime would report its use to its makers, where there is a network.
ENV ORT_DISABLE_TELEMETRY=1
# An image's arrays go back to the system when they are done with. Otherwise memory grows in steps, by which
# of the threads happened to decode.
ENV MALLOC_MMAP_THRESHOLD_=131072 \
    MALLOC_TRIM_THRESHOLD_=131072
# NumPy's threads would only stand beside ONNX Runtime's, and count against the limit on processes.
ENV OPENBLAS_NUM_THREADS=1
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app/src \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/app
USER 10001:10001

FROM runtime AS cpu-runtime
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --from=program /opt/app /opt/app

FROM runtime AS gpu-runtime
# The image has no CUDA of its own, so nothing else would tell the container runtime what it needs.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=program /opt/app /opt/app

FROM cpu-runtime AS cpu-exec
LABEL org.grand-challenge.api-method="exec"
ENTRYPOINT ["python", "/opt/app/process.py", "--allow-partial"]

FROM cpu-runtime AS cpu-invoke
LABEL org.grand-challenge.api-method="invoke"
EXPOSE 4743
ENTRYPOINT ["python", "-m", "softctm", "serve", "--allow-partial"]

FROM gpu-runtime AS gpu-exec
LABEL org.grand-challenge.api-method="exec"
ENTRYPOINT ["python", "/opt/app/process.py", "--allow-partial"]

FROM gpu-runtime AS gpu-invoke
LABEL org.grand-challenge.api-method="invoke"
EXPOSE 4743
ENTRYPOINT ["python", "-m", "softctm", "serve", "--allow-partial"]

# These name stages above, not images.
# hadolint ignore=DL3006
FROM cpu-${API} AS cpu

# hadolint ignore=DL3006
FROM gpu-${API} AS gpu

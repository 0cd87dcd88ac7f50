#!/usr/bin/env bash
# Build the image.
#
#   ./build.sh [--api exec|invoke] [--target gpu|cpu] [--tag NAME] [-- OPTIONS OF docker build]
#
# --api     Grand Challenge's interface: exec runs once and exits (default), invoke serves calls
# --target  gpu (default) or the small cpu
# --tag     default: softctm, softctm:invoke, softctm:cpu or softctm:cpu-invoke
#
# DOCKER=podman ./build.sh builds with podman.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
DOCKER=${DOCKER:-docker}

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

api="exec"
target="gpu"
tag=
while [ $# -gt 0 ]; do
  case $1 in
    --api | --target | --tag)
      [ -n "${2:-}" ] || { echo "error: $1 needs a value; see ./build.sh --help" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "error: unknown option $1; see ./build.sh --help" >&2; exit 2 ;;
  esac
done
case $api in exec | invoke) ;; *) echo "error: --api must be exec or invoke, not $api" >&2; exit 2 ;; esac
case $target in gpu | cpu) ;; *) echo "error: --target must be gpu or cpu, not $target" >&2; exit 2 ;; esac
if [ -z "$tag" ]; then
  case $target-$api in
    gpu-exec) tag=softctm ;;
    gpu-invoke) tag=softctm:invoke ;;
    cpu-exec) tag=softctm:cpu ;;
    cpu-invoke) tag=softctm:cpu-invoke ;;
  esac
fi
command -v "$DOCKER" >/dev/null || { echo "error: $DOCKER not found; install it or set DOCKER=podman" >&2; exit 1; }

options=(--platform linux/amd64 --build-arg "API=$api" --target "$target" --tag "$tag")
case $("$DOCKER" --version) in
  podman*) options+=(--format docker) ;; # podman's own format has no place for some labels the platform reads
esac
"$DOCKER" build "${options[@]}" "$@" .
echo "built $tag: $target, $api interface, $("$DOCKER" image inspect --format '{{.Size}}' "$tag" |
  awk '{printf "%.0f MB", $1 / 1e6}') unpacked"

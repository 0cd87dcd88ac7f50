#!/usr/bin/env bash
# Write what Grand Challenge takes: the image as one archive, and the model as another.
#
#   ./export.sh [--to DIR] [--weights DIR] [IMAGE]
#
# IMAGE      default: softctm; build it first with ./build.sh
# --to       where the files go; default: dist
# --weights  the model for model.tar.gz; default: model_weights
#
# Writes softctm.tar.gz (the image), softctm.cdx.json (its software bill of materials, CycloneDX) and
# model.tar.gz (unpacked by the platform at /opt/ml/model, where it takes precedence over the image's own).
# DOCKER=podman ./export.sh exports with podman.
set -euo pipefail
caller=$PWD
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
DOCKER=${DOCKER:-docker}

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

to="dist"
weights="model_weights"
image="softctm"
while [ $# -gt 0 ]; do
  case $1 in
    --to | --weights)
      [ -n "${2:-}" ] || { echo "error: $1 needs a value; see ./export.sh --help" >&2; exit 2; }
      value=$2
      case $2 in /*) ;; *) value=$caller/$2 ;; esac # where the user stands, not where this script does
      declare "${1#--}=$value"
      shift 2
      ;;
    --help | -h) usage; exit 0 ;;
    -*) echo "error: unknown option $1; see ./export.sh --help" >&2; exit 2 ;;
    *) image=$1; shift ;;
  esac
done
command -v "$DOCKER" >/dev/null || { echo "error: $DOCKER not found; install it or set DOCKER=podman" >&2; exit 1; }
"$DOCKER" image inspect "$image" >/dev/null 2>&1 || {
  echo "error: no image $image; build it with ./build.sh" >&2
  exit 1
}

mkdir -p "$to"
unfinished=$to/.softctm-$$
trap 'rm -f "$unfinished"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

save=("$DOCKER" save)
case $("$DOCKER" --version) in
  podman*) save+=(--format docker-archive) ;;
esac
compress=(gzip -n)
! command -v pigz >/dev/null || compress=(pigz -n)

finish() { # NAME: give the finished file its name, print its size and SHA-256
  mv "$unfinished" "$to/$1"
  chmod a+r "$to/$1"
  local sum
  sum=$({ sha256sum "$to/$1" 2>/dev/null || shasum -a 256 "$to/$1"; } | cut -d ' ' -f 1)
  echo "$to/$1: $(wc -c <"$to/$1" | awk '{printf "%.1f MB", $1 / 1e6}'), SHA-256 $sum"
}

"${save[@]}" "$image" | "${compress[@]}" >"$unfinished"
images=$(tar -xzOf "$unfinished" manifest.json | grep -o '"Config"' | wc -l)
if [ "$images" -ne 1 ]; then
  echo "error: the archive holds $images images; the platform takes exactly one" >&2
  exit 1
fi
finish softctm.tar.gz

"$DOCKER" run --rm --interactive --network none --entrypoint python "$image" - <scripts/sbom.py >"$unfinished"
finish softctm.cdx.json

if [ -f "$weights/model.json" ] || compgen -G "$weights/*.onnx" >/dev/null; then
  tar -czf "$unfinished" --exclude ./validation --exclude ./int8/validation --exclude ./nuclei \
    --exclude ./points -C "$weights" .
  finish model.tar.gz
else
  echo "no model in $weights: model.tar.gz not written"
fi

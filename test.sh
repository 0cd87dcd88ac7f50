#!/usr/bin/env bash
# Run the image on test/input under limits stricter than Grand Challenge's, and check what comes out.
#
#   ./test.sh [--weights DIR] [--input DIR] [--expected FILE|none] [--calls N] [IMAGE] [-- OPTIONS]
#   ./test.sh --accept [--calls N] [IMAGE]
#
# IMAGE       default: softctm; built with ./build.sh where it does not exist
# --weights   another model, mounted at /opt/ml/model (points are then not compared)
# --input     another input (points are then not compared)
# --expected  points to compare with; default: test/expected/cell_classification.json
# --accept    write the result, once it is checked, to test/expected instead of comparing with it
# --calls     how often an `invoke` image is called (default: 1); its memory must not grow
# OPTIONS     of the program, such as --views 1 (give --expected none, or points made with them)
#
# Works for both interfaces: an `exec` image is run once, an `invoke` image is started, asked for its health
# and called. DOCKER=podman ./test.sh tests with podman; MEMORY=8g gives more memory than 4 GB.
set -euo pipefail
caller=$PWD
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=test/container/limits.sh
. test/container/limits.sh

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

input="test/input"
expected=
weights=
accept=
calls=1
image="softctm"
while [ $# -gt 0 ]; do
  case $1 in
    --weights | --input | --expected | --calls)
      [ -n "${2:-}" ] || { echo "error: $1 needs a value; see ./test.sh --help" >&2; exit 2; }
      value=$2
      case $1:$2 in
        --calls:* | *:/* | --expected:none) ;;
        *) value=$caller/$2 ;; # where the user stands, not where this script does
      esac
      declare "${1#--}=$value"
      shift 2
      ;;
    --accept) accept=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    -*) echo "error: unknown option $1; see ./test.sh --help" >&2; exit 2 ;;
    *) image=$1; shift ;;
  esac
done
case $calls in
  *[!0-9]* | 0* | "") echo "error: --calls must be a number above 0, not $calls" >&2; exit 2 ;;
esac
if [ -n "$accept" ]; then
  if [ -n "$weights$expected" ] || [ "$input" != test/input ] || [ $# -gt 0 ]; then
    echo "error: --accept writes what the image's own model finds in test/input; leave the other options out" >&2
    exit 2
  fi
  expected="none"
fi
if [ -z "$expected" ]; then
  expected="test/expected/cell_classification.json"
  [ -z "$weights" ] && [ "$input" -ef test/input ] || expected="none"
fi
command -v "$DOCKER" >/dev/null || { echo "error: $DOCKER not found; install it or set DOCKER=podman" >&2; exit 1; }
for folder in "$input" ${weights:+"$weights"}; do
  [ -d "$folder" ] || { echo "error: no folder $folder" >&2; exit 1; }
done

if ! "$DOCKER" image inspect "$image" >/dev/null 2>&1; then
  [ "$image" = softctm ] || { echo "error: no image $image; build it with ./build.sh --tag $image" >&2; exit 1; }
  ./build.sh
fi

container=softctm-test-$$
scratch=$(mktemp -d)
cleanup() {
  trap - EXIT INT TERM
  "$DOCKER" rm --force "$container" >/dev/null 2>&1 || true
  "$DOCKER" rm --force "$container-check" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT
trap 'cleanup; exit 143' TERM

mkdir "$scratch/output"
chmod 0777 "$scratch/output" # the container's user is none of this machine's
set_limits
set_command "$image"
COMMAND+=("$@")
mounts=(-v "$(realpath "$input"):/input:ro" -v "$scratch/output:/output" -v "$PWD/test/container:/tools:ro")
[ -z "$weights" ] || mounts+=(-v "$(realpath "$weights"):/opt/ml/model:ro")

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

explain_exit() {
  case $1 in
    137) fail "killed (exit code 137): $MEMORY of memory were not enough; see docs/grand-challenge.md" ;;
    *) fail "the container ended with exit code $1; its last line above says why" ;;
  esac
}

began=$SECONDS
api=$(api_of "$image")
case $api in
  exec)
    code=0
    "$DOCKER" run --name "$container" "${LIMITS[@]}" "${mounts[@]}" --env "STARTED=$(date +%s)" \
      --entrypoint env "$image" -u HOME python /tools/measure.py "${COMMAND[@]}" || code=$?
    [ "$code" = 0 ] || explain_exit "$code"
    ;;
  invoke)
    "$DOCKER" run --detach --name "$container" "${LIMITS[@]}" "${mounts[@]}" \
      --entrypoint env "$image" -u HOME "${COMMAND[@]}" >/dev/null
    # Asked from inside the container, where the platform asks too: there is no network to ask from outside.
    code=0
    "$DOCKER" exec "$container" python /tools/calls.py "$calls" || code=$?
    "$DOCKER" logs --tail 20 "$container"
    if [ "$("$DOCKER" inspect --format '{{.State.Running}}' "$container")" != true ]; then
      explain_exit "$("$DOCKER" inspect --format '{{.State.ExitCode}}' "$container")"
    fi
    [ "$code" = 0 ] || fail "the server did not do as the platform asks; see the lines above"
    # SIGTERM, and after the platform's 5 s SIGKILL, which would leave 137.
    "$DOCKER" stop --time 5 "$container" >/dev/null
    code=$("$DOCKER" inspect --format '{{.State.ExitCode}}' "$container")
    [ "$code" = 0 ] || fail "the server did not end within 5 s of SIGTERM (exit code $code)"
    ;;
  *) fail "the image's label org.grand-challenge.api-method is '$api'; build it with ./build.sh" ;;
esac
seconds=$((SECONDS - began))

[ -f "$scratch/output/cell_classification.json" ] || fail "the container wrote no cell_classification.json"
comparison=()
check_mounts=(-v "$PWD/test:/test:ro" -v "$scratch/output:/result:ro")
if [ "$expected" != none ]; then
  [ -f "$expected" ] || fail "no expected points in $expected; write them with ./test.sh --accept"
  check_mounts+=(-v "$(realpath "$expected"):/expected.json:ro")
  comparison=(/expected.json)
fi
verdict=$("$DOCKER" run --rm --name "$container-check" "${LIMITS[@]}" "${check_mounts[@]}" --entrypoint python "$image" \
  /test/container/check.py /result/cell_classification.json /test/schema/multiple-points.schema.json \
  ${comparison[@]+"${comparison[@]}"}) || { echo "$image ($api): ${verdict:-FAILED}" >&2; exit 1; }
if [ -n "$accept" ]; then
  mkdir -p test/expected
  cp "$scratch/output/cell_classification.json" test/expected/
fi
echo "$image ($api): $verdict; $seconds s under the limits"

# shellcheck shell=bash disable=SC2034
# Sourced by test.sh and .ci/container: the limits under which the image must live. Stricter than Grand
# Challenge's own today; docs/grand-challenge.md says what each means.

DOCKER=${DOCKER:-docker}
MEMORY=${MEMORY:-4g}

# Sets LIMITS, the options of `docker run`.
set_limits() {
  LIMITS=(
    --platform linux/amd64
    --network none
    --memory "$MEMORY" --memory-swap "$MEMORY"
    --pids-limit 128
    --shm-size 128m
    --cap-drop ALL
    --security-opt no-new-privileges
    --read-only --tmpfs "/tmp:rw,nosuid,nodev,size=1g"
    --user 54321:54321
  )
  case $("$DOCKER" --version) in
    podman*) LIMITS+=(--read-only-tmpfs=false) ;; # no writable folders but those above, as docker has it
  esac
}

# Sets COMMAND to the image's own command, to be run with HOME unset: docker always sets HOME.
#   "$DOCKER" run "${LIMITS[@]}" --entrypoint env IMAGE -u HOME "${COMMAND[@]}"
set_command() {
  local image=$1 word
  COMMAND=()
  while read -r word; do
    [ -z "$word" ] || COMMAND+=("$word")
  done < <("$DOCKER" image inspect --format \
    '{{range .Config.Entrypoint}}{{println .}}{{end}}{{range .Config.Cmd}}{{println .}}{{end}}' "$image")
}

api_of() {
  "$DOCKER" image inspect --format '{{index .Config.Labels "org.grand-challenge.api-method"}}' "$1"
}

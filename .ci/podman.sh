# shellcheck shell=bash
# Sourced by .ci/container: podman on a Debian 12 machine that has no container engine and reaches no image
# registry. Sets up the tools, private settings, and a stand-in for the official Python base image.
#
# The stand-in holds Debian's own Python 3.11 at the places where python:3.11-slim-bookworm has its own. It is
# for tests only: an image that is published is built on the official one, as `./build.sh` does by default.

CI_STORE=${SOFTCTM_CI_STORE:-/var/tmp/softctm-ci}
BASE_IMAGE=localhost/softctm-ci-base:bookworm

install_podman() {
  if command -v podman >/dev/null && command -v runc >/dev/null && command -v mmdebstrap >/dev/null; then
    return
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  # runc, not crun: Debian's crun refuses a machine with both cgroup versions mounted.
  apt-get install -y -qq --no-install-recommends podman buildah runc catatonit mmdebstrap uidmap >/dev/null 2>&1
}

# Private settings, so that the machine's own podman is left as it is. The process and file limits must be
# given: podman's built-in ones cannot be set where root lacks CAP_SYS_RESOURCE.
configure_podman() {
  mkdir -p "$CI_STORE"
  local files processes user_processes
  files=$(ulimit -Hn)
  processes=$(cat /proc/sys/kernel/pid_max)
  user_processes=$(ulimit -Hu)
  if [ "$user_processes" != unlimited ] && [ "$user_processes" -lt "$processes" ]; then
    processes=$user_processes
  fi
  cat >"$CI_STORE/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:$files", "nproc=$processes:$processes"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
  cat >"$CI_STORE/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$CI_STORE/storage"
runroot = "$CI_STORE/run"
CONF
  # What the build needs to reach the package index, and nothing that stays in the image.
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 180\n' >"$CI_STORE/pip.conf"
  export CONTAINERS_CONF="$CI_STORE/containers.conf" CONTAINERS_STORAGE_CONF="$CI_STORE/storage.conf"
}

make_base_image() {
  if podman image exists "$BASE_IMAGE"; then
    return
  fi
  local archive=$CI_STORE/base.tar
  # mmdebstrap expands "$1" in its hooks itself.
  # shellcheck disable=SC2016
  mmdebstrap --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include=ca-certificates,netbase,tzdata,python3,python3-pip \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
    --customize-hook='for name in python python3; do ln -s /usr/bin/python3.11 "$1/usr/local/bin/$name"; done' \
    --customize-hook=': > "$1/etc/pip.conf"' \
    bookworm "$archive" /etc/apt/sources.list.d/debian.sources >"$CI_STORE/base.log" 2>&1 || {
    tail -20 "$CI_STORE/base.log"
    return 1
  }
  podman import -q -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' "$archive" "$BASE_IMAGE" >/dev/null
  rm -f "$archive"
}

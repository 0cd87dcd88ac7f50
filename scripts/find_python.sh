#!/bin/sh
# Print the first Python here that can set up an environment: 3.11 or later, with venv and pip.
#
#   scripts/find_python.sh [COMMAND …]    default: python3.11 … python3.14, python3
set -eu
[ $# -gt 0 ] || set -- python3.11 python3.12 python3.13 python3.14 python3
for python; do
  if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$python"
    exit
  fi
done
echo "error: no Python 3.11 or later with venv among: $*; on Debian and Ubuntu: apt-get install python3-venv" >&2
exit 1

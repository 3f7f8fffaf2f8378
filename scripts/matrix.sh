#!/bin/sh
# Runs the test suite on each CPython from 3.11 on that is installed here: on PATH as python3.N, or below pyenv's versions.
# Each has an environment of its own in .matrix/3.N. Arguments go to pytest. Fails when one of them fails, after all have run.
set -eu
cd "$(dirname "$0")/.."
. scripts/cpython.sh
workers=${WORKERS:-$((2 * $(nproc) + 2))}
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

failed=0
for minor in 11 12 13 14 15 16; do
    python=$(find_cpython "$minor")
    [ -n "$python" ] || continue
    venv=.matrix/3.$minor
    began=$(date +%s)
    if ! PYTHON=$python VENV=$venv sh scripts/setup.sh; then
        said="cannot be set up"
        failed=1
    else
        status=0
        "$venv/bin/python" -m pytest -n "$workers" --dist worksteal "$@" || status=$?
        said="passed"
        [ "$status" = 0 ] || { said="FAILED (pytest ended with $status)"; failed=1; }
        said="$("$venv/bin/python" --version) $said"
    fi
    printf '%-5s %s, %d s\n' "3.$minor" "$said" "$(($(date +%s) - began))" >>"$summary"
done

echo
if [ ! -s "$summary" ]; then
    echo "matrix: no CPython from 3.11 on is installed" >&2
    exit 1
fi
echo "matrix:"
cat "$summary"
exit "$failed"

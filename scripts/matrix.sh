#!/bin/sh
# Runs the test suite on each CPython from 3.11 on that is installed here: on PATH as python3.N, or below pyenv's versions.
# Each runs it twice: with the commit path's parts in C, and with their Python twins. Each has an environment of its own in
# .matrix/3.N. Arguments go to pytest. Fails when one of them fails, after all have run.
# MATRIX_MINORS="12 13" and MATRIX_CORES="python" choose some of them.
set -eu
cd "$(dirname "$0")/.."
. scripts/cpython.sh
workers=${WORKERS:-$((2 * $(nproc) + 2))}
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

failed=0
for minor in ${MATRIX_MINORS:-11 12 13 14 15 16}; do
    python=$(find_cpython "$minor")
    [ -n "$python" ] || continue
    venv=.matrix/3.$minor
    if ! PYTHON=$python VENV=$venv sh scripts/setup.sh; then
        echo "3.$minor  cannot be set up" >>"$summary"
        failed=1
        continue
    fi
    for core in ${MATRIX_CORES:-c python}; do
        began=$(date +%s)
        status=0
        WALSVC_CORE=$core "$venv/bin/python" -m pytest -n "$workers" --dist worksteal "$@" || status=$?
        said="passed"
        [ "$status" = 0 ] || { said="FAILED (pytest ended with $status)"; failed=1; }
        printf '%-5s %s, core %-6s %s, %d s\n' "3.$minor" "$("$venv/bin/python" --version)" "$core" "$said" \
            "$(($(date +%s) - began))" >>"$summary"
    done
done

echo
if [ ! -s "$summary" ]; then
    echo "matrix: no CPython from 3.11 on is installed" >&2
    exit 1
fi
echo "matrix:"
cat "$summary"
exit "$failed"

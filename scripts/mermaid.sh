#!/bin/sh
# Fetches mermaid, which draws the diagrams of the site, by npm into .site/mermaid. Without npm they stay as they are written.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .site/mermaid ] || exit 0
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
if ! { command -v npm && cd "$place" && npm pack --silent mermaid@11; } >"$place/log" 2>&1; then
    echo "site: npm brings no mermaid, so diagrams are text: $(tail -n 1 "$place/log")"
    exit 0
fi
tar xzf "$place"/mermaid-*.tgz -C "$place" package/dist/mermaid.min.js package/LICENSE
mv "$place/package" "$OLDPWD/.site/mermaid"

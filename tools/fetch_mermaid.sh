#!/usr/bin/env bash
# The script that draws the documentation's diagrams, from npm into the site's theme, once.
set -e
version=11.17.2
cd "$(dirname "$0")/site"
[ -s assets/mermaid.min.js ] && exit
mkdir -p assets
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
npm pack --silent --pack-destination "$folder" "mermaid@$version" >/dev/null
tar -xzf "$folder/mermaid-$version.tgz" -C "$folder" package/dist/mermaid.min.js
mv "$folder/package/dist/mermaid.min.js" assets/

#!/bin/sh
# Writes the current digest of each base image after its tag in Dockerfile and compose.yaml. Needs docker and network.
set -eu
cd "$(dirname "$0")/.."

images=$(sed -nE 's/^FROM ([^ @]+).*/\1/p; s/^ +image: ([^ @]+).*/\1/p' Dockerfile compose.yaml | sort -u)
for image in $images; do
	digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}') || digest=
	if ! echo "$digest" | grep -qE '^sha256:[0-9a-f]{64}$'; then
		echo "The digest of $image cannot be looked up; check docker and the network. This and later images are unchanged." >&2
		exit 1
	fi
	sed -Ei "s|(FROM \|image: )($image)(@sha256:[0-9a-f]+)?( \|\$)|\1\2@$digest\4|" Dockerfile compose.yaml
	echo "$image@$digest"
done

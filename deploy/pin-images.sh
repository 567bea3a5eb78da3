#!/bin/sh
# Writes the digest of each base image behind its tag, in Dockerfile and compose.yaml; needs docker and the registries.
# Run again, it writes the digests that the tags have by then.
set -eu
cd "$(dirname "$0")/.."

images=$(sed -nE 's/^FROM ([^ @]+).*/\1/p; s/^ +image: ([^ @]+).*/\1/p' Dockerfile compose.yaml | sort -u)
for image in $images; do
	digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}') || digest=
	if ! echo "$digest" | grep -qE '^sha256:[0-9a-f]{64}$'; then
		echo "The digest of $image cannot be looked up: docker, or its registry, cannot be reached. The rest is unchanged." >&2
		exit 1
	fi
	sed -Ei "s|(FROM \|image: )($image)(@sha256:[0-9a-f]+)?( \|\$)|\1\2@$digest\4|" Dockerfile compose.yaml
	echo "$image@$digest"
done

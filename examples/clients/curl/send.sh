#!/bin/sh
# Sends a file of events (NDJSON, one event per line) to Eclusa, each stored exactly once.
#
#   send.sh FILE
#
# ECLUSA_URL   default http://127.0.0.1:3000
# ECLUSA_KEY   API key, if the server has keys
set -eu

file=${1:?usage: send.sh FILE}
url=${ECLUSA_URL:-http://127.0.0.1:3000}
attempts=20

# Events without an id get one derived from this key and their position. The key is a hash of the
# file, so a repeated request, and a second run with the same file, store nothing twice.
key=$(sha256sum <"$file" | cut -c1-64)

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

if [ -n "${ECLUSA_KEY:-}" ]; then
    set -- --header "authorization: Bearer $ECLUSA_KEY"
else
    set --
fi

attempt=1
while :; do
    # curl itself repeats after 408, 429 and 5xx, after the delay that Retry-After names.
    status=0
    curl --silent --show-error --fail-with-body --max-time 60 \
        --retry 10 --retry-connrefused --retry-max-time 120 --output "$answer" "$@" \
        --header 'content-type: application/x-ndjson' --header "idempotency-key: $key" \
        --data-binary "@$file" "$url/v1/events" || status=$?
    case $status in
        0) break ;;
        # No connection, or it ended before the response: the events may or may not be stored.
        7 | 28 | 35 | 52 | 55 | 56) [ "$attempt" -lt "$attempts" ] || exit "$status" ;;
        # The request is wrong, or the server was unavailable for too long; the response says which.
        *) cat "$answer" >&2; exit "$status" ;;
    esac
    attempt=$((attempt + 1))
    sleep 1
done
cat "$answer"
echo

#!/usr/bin/env python3
"""Sends events to Eclusa over HTTP, each stored exactly once. Standard library only.

    http_client.py [USER]

ECLUSA_URL   default http://127.0.0.1:3000
ECLUSA_KEY   API key, if the server has keys
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("ECLUSA_URL", "http://127.0.0.1:3000")
KEY = os.environ.get("ECLUSA_KEY")
GIVE_UP_AFTER = 120.0  # seconds
LONGEST_DELAY = 10.0  # seconds

# Python 3.14 has UUIDv7, which keeps the indexes of the log small.
new_id = getattr(uuid, "uuid7", uuid.uuid4)


class Refused(Exception):
    """The request is wrong; repeating it does not help."""


def send(events):
    """Returns the items of the response, one per event, once all of them are durable.

    Every event gets its id before the first attempt. A response can be lost after the commit, so
    a repeated request is normal; the ids make it store nothing twice.
    """
    events = [{"id": str(new_id()), **event} for event in events]
    body = json.dumps(events).encode()
    headers = {"content-type": "application/json"}
    if KEY:
        headers["authorization"] = f"Bearer {KEY}"
    deadline = time.monotonic() + GIVE_UP_AFTER
    delay = 0.2
    while True:
        request = urllib.request.Request(f"{URL}/v1/events", body, headers)
        retry_after = None
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["items"]
        except urllib.error.HTTPError as error:
            problem = error.read().decode(errors="replace")
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise Refused(f"{error.code}: {problem}") from None
            retry_after = error.headers.get("retry-after")
            reason = f"{error.code}: {problem}"
        except (OSError, http.client.HTTPException) as error:
            reason = repr(error)  # no connection, or it ended before the response
        pause = float(retry_after) if retry_after else delay
        delay = min(delay * 2, LONGEST_DELAY)
        if time.monotonic() + pause > deadline:
            raise TimeoutError(f"given up after {GIVE_UP_AFTER:.0f} s; last: {reason}")
        print(f"again in {pause:.1f} s: {reason}", file=sys.stderr)
        time.sleep(pause)


def main():
    user = sys.argv[1] if len(sys.argv) > 1 else "ana"
    items = send(
        [
            {"userId": user, "eventType": "page.view", "eventData": {"path": "/"}},
            {"userId": user, "eventType": "cart.add", "eventData": {"sku": "A-7", "qty": 2}},
        ]
    )
    for item in items:
        print(item["status"], item["id"])


if __name__ == "__main__":
    try:
        main()
    except (Refused, TimeoutError) as error:
        sys.exit(str(error))

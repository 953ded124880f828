#!/usr/bin/env python3
"""Publishes events to Eclusa through RabbitMQ, each stored exactly once. Needs pika.

    amqp_client.py [USER]

RABBITMQ_URL     default amqp://guest:guest@127.0.0.1:5672/%2f
RABBITMQ_QUEUE   default eclusa.events, the work queue
"""

import json
import os
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

URL = os.environ.get("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
QUEUE = os.environ.get("RABBITMQ_QUEUE", "eclusa.events")
ATTEMPTS = 10
LONGEST_DELAY = 10.0  # seconds

# Python 3.14 has UUIDv7, which keeps the indexes of the log small.
new_id = getattr(uuid, "uuid7", uuid.uuid4)


def publish(events):
    """Returns the events' ids once RabbitMQ has confirmed all of them.

    Every event gets its id before the first attempt. A confirm can be lost after the message has
    arrived, so a repeated message is normal; the id makes it store nothing twice.
    """
    waiting = [{"id": str(new_id()), **event} for event in events]
    ids = [event["id"] for event in waiting]
    delay = 0.2
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                while waiting:
                    publish_one(channel, waiting[0])
                    waiting.pop(0)
            return ids
        except (AMQPError, NackError, UnroutableError, OSError) as error:
            if not waiting:
                return ids  # all confirmed; only closing the connection failed
            if attempt == ATTEMPTS:
                raise
            print(f"again in {delay:.1f} s: {error!r}", file=sys.stderr)
            time.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)


def publish_one(channel, event):
    """Raises unless a queue has the message: without `mandatory` RabbitMQ confirms one that it drops."""
    channel.basic_publish(
        exchange="",
        routing_key=QUEUE,
        body=json.dumps(event),
        properties=pika.BasicProperties(
            content_type="application/json",
            delivery_mode=pika.spec.PERSISTENT_DELIVERY_MODE,
            message_id=event["id"],
        ),
        mandatory=True,
    )


def main():
    user = sys.argv[1] if len(sys.argv) > 1 else "ana"
    ids = publish(
        [
            {"userId": user, "eventType": "page.view", "eventData": {"path": "/"}},
            {"userId": user, "eventType": "cart.add", "eventData": {"sku": "A-7", "qty": 2}},
        ]
    )
    for event_id in ids:
        print("confirmed", event_id)


if __name__ == "__main__":
    main()

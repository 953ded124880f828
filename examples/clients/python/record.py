#!/usr/bin/env python3
"""Signs a user up and records the event in the same transaction: both are committed, or neither.

Usage: record.py EMAIL
DATABASE_URL names the PostgreSQL database of Eclusa, where this keeps a table of its own. Prints the event's id.
"""

import os
import sys

import psycopg2
from psycopg2.extras import Json

if len(sys.argv) != 2:
    sys.exit(__doc__)
email = sys.argv[1]

connection = psycopg2.connect(os.environ.get("DATABASE_URL", "postgres://127.0.0.1/eclusa"))
with connection, connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS users (email text PRIMARY KEY)")
with connection, connection.cursor() as cursor:
    cursor.execute(
        "SELECT eclusa_record('user.signed_up', %s, user_id => %s)",
        (Json({"email": email}), email),
    )
    (event_id,) = cursor.fetchone()
    # An error from here on, such as an address that is taken, takes the event back too.
    cursor.execute("INSERT INTO users VALUES (%s)", (email,))
connection.close()
print(event_id)

"""An SMTP server that prints each message that it takes, as a line of JSON.

Its only argument is JSON: "port"; "replies" by the command MAIL, DATA or the address of a recipient, in
place of 250; "user" and "password", asked of every client; "certificate" and "key" for STARTTLS, with
"implicit" for TLS from the first byte; "silent", the server takes a message and never answers; "delay", the seconds that it takes for the answer.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

options = json.loads(sys.argv[1])
replies = options.get("replies", {})


def show(**line):
    print(json.dumps(line), flush=True)


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        if "MAIL" in replies:
            return replies["MAIL"]
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in replies:
            return replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if "DATA" in replies:
            return replies["DATA"]
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = [part for part in message.walk() if not part.is_multipart()]
        show(
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            headers=[[name.lower(), str(value)] for name, value in message.items()],
            defects=[str(defect) for defect in message.defects],
            type=message.get_content_type(),
            parts={part.get_content_type(): part.get_content() for part in parts},
            ascii=envelope.content.isascii(),
            tls=session.ssl is not None or bool(options.get("implicit")),
            login=session.authenticated,
            peer=session.peer[1],
        )
        if options.get("silent"):
            await asyncio.sleep(3600)
        await asyncio.sleep(options.get("delay", 0))
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    known = (options["user"].encode(), options["password"].encode())
    if (data.login, data.password) == known:
        return AuthResult(success=True)
    # A server that repeats what it was sent.
    words = "535 5.7.8 not " + data.password.decode()
    return AuthResult(success=False, handled=False, message=words)


async def serve():
    context = None
    if "certificate" in options:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options["certificate"], options["key"])
    implicit = options.get("implicit")
    arguments = {"hostname": "localhost", "enable_SMTPUTF8": bool(options.get("utf8"))}
    if context and not implicit:
        arguments |= {"tls_context": context, "require_starttls": True}
    if "user" in options:
        arguments |= {
            "authenticator": authenticate,
            "auth_required": True,
            "auth_require_tls": False,
        }
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), **arguments),
        "127.0.0.1",
        options["port"],
        ssl=context if implicit else None,
    )
    show(ready=True)
    await server.serve_forever()


asyncio.run(serve())

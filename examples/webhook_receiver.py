"""Receive ragq's webhooks on a port of this machine, and check their signatures.

The secret is the one that `POST /v1/webhook_endpoints` answers with; it is read from OPENAI_WEBHOOK_SECRET. ragq calls hosts of this
machine only when they are named in RAGQ_WEBHOOK_ALLOWED_HOSTS.
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from openai import InvalidWebhookSignatureError, OpenAI

client = OpenAI()


class Receiver(BaseHTTPRequestHandler):
    """Answers 200 once an event is taken; anything else is sent again later."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = client.webhooks.unwrap(body, dict(self.headers))
        except InvalidWebhookSignatureError:
            self.send_error(400, "wrong signature")
            return
        self.send_response(200)
        self.end_headers()
        if event.type == "response.completed":
            print(event.type, event.data.id, flush=True)


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()

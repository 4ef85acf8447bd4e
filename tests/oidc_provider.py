"""A small OpenID provider that errs on demand: discovery, sign-in, tokens, keys that change, sign-out.

Run it with `python -m tests.oidc_provider --port 0`; when ready, it prints a line of JSON with its `issuer`. `POST /set`
changes its `Behaviour`, `POST /rotate` its keys, `POST /issue` makes an access token. In a test: `OidcProvider()`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import html
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_plus, urlencode

import httpx2
import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.servers import environment

CLIENT_ID = "ragq"
CLIENT_SECRET = "s3cret of ragq: +/%"
ADA = {"sub": "u-1", "name": "Ada Example", "groups": ["staff"]}


@dataclass(frozen=True)
class Behaviour:
    """How it answers.

    Attributes:
        person: Claims of the one who signs in.
        claims: Further claims of the next tokens; null leaves one out.
        algorithm: Of the tokens' signatures; `none` and `HS256` are forgeries.
        kid: The key that a token names; empty: the right one.
        foreign: Sign with a key that is not published, and put it into the token's header.
        says_issuer: Send `iss` with the answer to a sign-in: `ours`, another one, or empty for none.
        promises_issuer: Say in the description that `iss` is always sent.
        pkce: Check the verifier.
        error: Refuse to sign in, with this code.
        page: Show a page with a button instead of signing in at once.
        methods: How ragq may prove who it is.
        status: HTTP status of the description.
        keys_status: HTTP status of the keys.
        calls_itself: Issuer in the description; empty: the right one.
        plain_http: Have an address for tokens without TLS.
        signs_out: Have an address for signing out.
    """

    person: dict[str, Any] = field(default_factory=lambda: ADA)
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    kid: str = ""
    foreign: bool = False
    says_issuer: str = "ours"
    promises_issuer: bool = False
    pkce: bool = True
    error: str = ""
    page: bool = False
    methods: list[str] = field(default_factory=lambda: ["client_secret_basic"])
    status: int = 200
    keys_status: int = 200
    calls_itself: str = ""
    plain_http: bool = False
    signs_out: bool = True


class KeyPair:
    """A key of each kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def sign(self, claims: dict[str, Any], behaviour: Behaviour) -> str:
        algorithm = behaviour.algorithm
        headers: dict[str, Any] = {"kid": behaviour.kid or f"{self.name}-{algorithm}"}
        if behaviour.foreign:
            headers["jwk"] = self.publish()[0]
        if algorithm == "none":
            return jwt.encode(claims, "", "none", headers)
        if algorithm == "HS256":  # with the public key, which everyone has, as the secret
            headers["kid"] = f"{self.name}-RS256"
            return forge(claims, headers, self.public_pem())
        return jwt.encode(claims, self._keys[algorithm], algorithm, headers)

    def public_pem(self) -> bytes:
        return bytes(
            self._keys["RS256"]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def publish(self) -> list[dict[str, Any]]:
        kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        return [
            {**kind.to_jwk(self._keys[name].public_key(), as_dict=True), "kid": f"{self.name}-{name}", "use": "sig"}
            for name, kind in kinds.items()
        ]


def forge(claims: dict[str, Any], headers: dict[str, Any], secret: bytes) -> str:
    """Sign with a public key as the secret of an HMAC, which PyJWT refuses to do."""
    parts = [{"alg": "HS256", "typ": "JWT", **headers}, claims]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return (signed + b"." + base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")).decode()


class Server:
    """The provider's routes."""

    def __init__(self) -> None:
        self.issuer = ""
        self._behaviour = Behaviour()
        self._rotations = 0
        self._keys, self._foreign = KeyPair("key-0"), KeyPair("key-0")
        self._codes: dict[str, dict[str, str]] = {}
        self._seen: list[dict[str, Any]] = []

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._record])
        application.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._describe),
                web.get("/authorize", self._authorize),
                web.post("/token", self._exchange),
                web.get("/jwks", self._publish),
                web.get("/logout", self._sign_out),
                web.post("/set", self._set),
                web.post("/rotate", self._rotate),
                web.post("/issue", self._issue),
                web.get("/seen", self._show_seen),
            ]
        )
        return application

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in ("/token", "/logout", "/jwks"):
            self._seen.append({"path": request.path, **request.query, **(await request.post())})
        response: web.StreamResponse = await handler(request)
        return response

    async def _set(self, request: web.Request) -> web.Response:
        self._behaviour = replace(Behaviour(), **await request.json())
        self._seen.clear()
        return web.json_response({})

    async def _issue(self, request: web.Request) -> web.Response:
        return web.json_response({"token": self._sign(await request.json())})

    async def _rotate(self, _: web.Request) -> web.Response:
        self._rotations += 1
        self._keys = KeyPair(f"key-{self._rotations}")
        return web.json_response({})

    async def _show_seen(self, _: web.Request) -> web.Response:
        return web.json_response(self._seen)

    async def _describe(self, _: web.Request) -> web.Response:
        behaviour = self._behaviour
        described = {
            "issuer": behaviour.calls_itself or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?theme=plain",
            "token_endpoint": "http://login.example.com/token" if behaviour.plain_http else f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "token_endpoint_auth_methods_supported": behaviour.methods,
            "authorization_response_iss_parameter_supported": behaviour.promises_issuer,
        }
        if behaviour.signs_out:
            described["end_session_endpoint"] = f"{self.issuer}/logout"
        return web.json_response(described, status=behaviour.status)

    async def _authorize(self, request: web.Request) -> web.Response:
        query, behaviour = request.query, self._behaviour
        assert query["theme"] == "plain"
        assert query["client_id"] == CLIENT_ID
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        answer = {"state": query["state"]}
        if behaviour.says_issuer:
            answer["iss"] = self.issuer if behaviour.says_issuer == "ours" else behaviour.says_issuer
        if behaviour.error:
            answer |= {"error": behaviour.error, "error_description": "as the test wants it"}
        else:
            answer["code"] = f"code-{len(self._codes)}"
            self._codes[answer["code"]] = dict(query)
        back = f"{query['redirect_uri']}?{urlencode(answer)}"
        if behaviour.page:
            button = f'<!doctype html><title>Provider</title><a href="{html.escape(back)}">Continue as Ada</a>'
            return web.Response(text=button, content_type="text/html")
        return web.Response(status=302, headers={"Location": back})

    async def _exchange(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self._codes.pop(str(form.get("code")), None)
        if not self._is_ragq(request, dict(form)):
            return web.json_response({"error": "invalid_client"}, status=401)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        if self._behaviour.pkce and base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": self._make_token(asked)})

    def _is_ragq(self, request: web.Request, form: dict[str, Any]) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(given).decode().partition(":")
            is_right = (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
            return is_right and self._behaviour.methods == ["client_secret_basic"]
        if self._behaviour.methods == ["client_secret_post"]:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        return self._behaviour.methods == ["none"] and form.get("client_id") == CLIENT_ID

    def _make_token(self, asked: dict[str, str]) -> str:
        return self._sign({"aud": CLIENT_ID, "nonce": asked["nonce"]})

    def _sign(self, claims: dict[str, Any]) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "exp": now + 60} | self._behaviour.person | claims
        claims |= self._behaviour.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        keys = self._foreign if self._behaviour.foreign else self._keys
        return keys.sign(claims, self._behaviour)

    async def _publish(self, _: web.Request) -> web.Response:
        other = {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}
        return web.json_response({"keys": [other, *self._keys.publish()]}, status=self._behaviour.keys_status)

    async def _sign_out(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["post_logout_redirect_uri"]})


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    server, ended = Server(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    server.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(json.dumps({"issuer": server.issuer}), flush=True)  # noqa: T201
    await ended.wait()
    await runner.cleanup()


def without_times(case: object) -> str:
    """Name a test's case the same in each process that collects it, whenever that is."""
    return re.sub(r"\d{10}", "TIME", str(case))


class OidcProvider:
    """The provider as a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.oidc_provider", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._process.stdout
        self.issuer: str = json.loads(self._process.stdout.readline())["issuer"]

    def set(self, **behaviour: Any) -> None:
        """Behave in another way, and forget what was seen."""
        httpx2.post(f"{self.issuer}/set", content=json.dumps(behaviour)).raise_for_status()

    def issue(self, **claims: Any) -> str:
        """Make an access token."""
        return str(httpx2.post(f"{self.issuer}/issue", content=json.dumps(claims)).json()["token"])

    def rotate(self) -> None:
        """Replace all keys."""
        httpx2.post(f"{self.issuer}/rotate").raise_for_status()

    def seen(self, path: str) -> list[dict[str, str]]:
        """The fields of the calls of a route."""
        return [one for one in httpx2.get(f"{self.issuer}/seen").json() if one.pop("path") == path]

    def settings(self, **others: object) -> dict[str, object]:
        """Settings of a ragq whose people sign in here."""
        return {
            "RAGQ_OIDC_ISSUER": self.issuer,
            "RAGQ_OIDC_CLIENT_ID": CLIENT_ID,
            "RAGQ_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            **others,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))

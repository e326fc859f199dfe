"""Signatures of webhooks, as https://www.standardwebhooks.com has them: receivers find libraries for it.

What is signed is the id, the time in seconds and the body, with dots between, by HMAC-SHA256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from pipeline.counted import counted
from pipeline.errors import ConfigError

KEY_BYTES_MIN: Final = 24
_PREFIX: Final = "whsec_"


def key_of(secret: str, where: str) -> bytes:
    """The key that a secret stands for: Base64 after `whsec_`, else the secret's own bytes.

    Args:
        secret: as it was configured.
        where: the sink, for the error.

    Raises:
        ConfigError: it is too short, or no Base64.
    """
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"{where}: the secret begins with {_PREFIX}, but what follows is no Base64") from None
    if len(key) < KEY_BYTES_MIN:
        raise ConfigError(
            f"{where}: the secret has {counted(len(key), 'byte')}, at least {KEY_BYTES_MIN} are needed; "
            "make one with: openssl rand -base64 32"
        )
    return key


def headers_of(key: bytes, message_id: str, now_s: int, body: bytes) -> dict[str, str]:
    """The headers of a signed message."""
    signed = b".".join((message_id.encode("ascii"), str(now_s).encode("ascii"), body))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")
    return {"webhook-id": message_id, "webhook-timestamp": str(now_s), "webhook-signature": f"v1,{digest}"}

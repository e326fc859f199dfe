"""Text that a terminal or a page shows and does not obey: prompts and account ids are written by strangers."""

from __future__ import annotations

import re
from typing import Final

# What a terminal obeys (control characters), and what makes text look other than it is (bidirectional overrides,
# characters without width, tags).
_HARMFUL: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
    "\\ud800-\\udfff\\U000e0000-\\U000e0fff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def harmless(text: str, keep: str = "") -> str:
    r"""Text that a terminal shows and does not obey.

    Args:
        text: anything.
        keep: characters to leave as they are.

    Returns:
        The same with control and invisible characters written out, as `\\u001b`.
    """
    return _HARMFUL.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")  # noqa: PLR2004  # the last of \u

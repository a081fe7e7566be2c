"""What a decoder of msgspec raises for bytes that are no document of the wanted kind: malformed or of another kind
(ValidationError is a DecodeError), text that is not UTF-8, brackets within brackets without an end."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

"""Text from outside, made safe to show or write: a character that is not becomes a question mark."""

from __future__ import annotations


def printable(value: object) -> str:
    """The value as text without control characters, which could steer a terminal."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def encodable(text: str) -> str:
    """The text without lone surrogates, which neither UTF-8 nor JSON can hold."""
    return text.encode(errors="replace").decode()

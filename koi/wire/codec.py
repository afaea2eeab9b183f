"""Messages as bytes: compact JSON of the dataclasses of koi.core.messages, checked field by field.

A body is `[kind, sender, [field, ...]]`: the kind is the class name, the fields stand in the order of the class, nested
dataclasses and tuples are lists too. There are no JSON objects, so no field can be unknown or given twice. Above
DEFLATE_ABOVE bytes the body is deflated.

Rule kept: what decode returns is exactly what the type hints promise, within the bounds below; anything else is Malformed,
and encode never makes what decode would refuse. Both directions are compiled from the type hints, by `prepare` or at a
class's first use.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import fields, is_dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Callable, Union, get_args, get_origin, get_type_hints

from koi.core import messages

MAX_BODY = 60_000
"""Bytes of a body, as sent and as inflated."""
MAX_TEXT = 1_000
"""Characters of a string; encode cuts longer free text and ends it with CUT."""
MAX_ITEMS = 1_000
"""Items of a tuple."""
LIMIT = 2**53
"""Numbers lie within +-LIMIT: what JSON readers of every make carry exactly."""
DEFLATE_ABOVE = 500
CUT = "..."

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What a node, an elector or a service may be called."""

NAMES = {"name", "master", "target", "passive", "leader", "candidate"}
SIGNED = {"rank", "preference", "exit"}
SPANS = {"lease", "grace"}
LONG = {"Response.text": MAX_BODY}
CHOICES = {
    "hold": messages.HOLDS,
    "Response.kind": (messages.ANSWER, messages.PROGRESS, messages.REDIRECT, messages.REFUSED),
}
KINDS: dict[str, type] = {kind.__name__: kind for kind in messages.DATAGRAMS}

Check = Callable[[Any], Any]


class Malformed(Exception):
    """These bytes are no message, or this message cannot be said in bytes; the text says what is wrong, and where."""


def encode(sender: str, message: object) -> bytes:
    """The body that says `message` in the name of `sender`. Malformed when it breaks a bound: that is a bug of the caller."""
    kind = KINDS.get(type(message).__name__)
    if kind is None:
        raise Malformed(f"{type(message).__name__} is not a datagram")
    packed = [kind.__name__, _sender(sender), _packer(kind)(message)]
    data = _ENCODER.encode(packed).encode("utf-8", "replace")
    if len(data) > MAX_BODY:
        raise Malformed(f"{kind.__name__}: {len(data)} bytes, more than {MAX_BODY}")
    return _deflate(data) if len(data) > DEFLATE_ABOVE else data


def decode(data: bytes) -> tuple[str, Any]:
    """The sender's name and the message of a body. Malformed when the type hints or the bounds are not kept."""
    body = _parse(_inflate(data) if data[:1] == _ZLIB else data)
    if type(body) is not list or len(body) != 3 or type(body[0]) is not str:
        raise Malformed("not [kind, sender, fields]")
    kind = KINDS.get(body[0])
    if kind is None:
        raise Malformed("unknown kind of message: " + repr(body[0][:40]))
    return _sender(body[1]), _unpacker(kind)(body[2])


def prepare() -> None:
    """Compile both directions of every datagram (4 ms), for who is about to fork: else the first of a kind comes to a process in
    the middle of an election or a failover, and waits."""
    for kind in messages.DATAGRAMS:
        _packer(kind)
        _unpacker(kind)


def check(content: object) -> None:
    """Malformed unless every field of this dataclass keeps its type hints and the bounds: for what stood in a file."""
    kind: type = type(content)
    _packer(kind)(content)


# --- bytes and JSON ---------------------------------------------------------------------------

_ZLIB = b"\x48"
"""First byte of what _deflate makes (deflate, window of 2**_WINDOW); JSON begins with a bracket."""
_WINDOW, _LEVEL, _MEMORY = 12, 1, 4


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)
_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _deflate(data: bytes) -> bytes:
    """A small window and little memory: four times as fast as zlib.compress, which clears 256 kB each time."""
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
    deflated = deflater.compress(data) + deflater.flush()
    return deflated if len(deflated) < len(data) else data


def _inflate(data: bytes) -> bytes:
    """The inverse, which stops at MAX_BODY whatever the bytes promise."""
    inflater = zlib.decompressobj(_WINDOW)
    try:
        body = inflater.decompress(data, MAX_BODY + 1)
    except zlib.error as error:
        raise Malformed(f"does not inflate: {error}") from None
    if len(body) > MAX_BODY:
        raise Malformed(f"inflates to more than {MAX_BODY} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Malformed("does not inflate: cut short, or more behind it")
    return body


def _parse(data: bytes) -> Any:
    if len(data) > MAX_BODY:
        raise Malformed(f"{len(data)} bytes, more than {MAX_BODY}")
    try:
        text = str(data, "utf-8")
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {str(error)[:100]}") from None
    if end != len(text):
        raise Malformed("more behind the message")
    return value


# --- checks, made from type hints -------------------------------------------------------------
# A check returns the value in its other form (packing: dataclass to list; unpacking: list to dataclass) or raises Malformed.


@lru_cache(maxsize=None)
def _packer(kind: type) -> Check:
    """The function that turns an instance of `kind` into the list of its fields."""
    names = [field.name for field in fields(kind)]
    checks = _field_checks(kind, True)
    get = attrgetter(*names) if len(names) > 1 else lambda message: (getattr(message, names[0]),)
    rule = _RULES.get(kind)

    def pack(message: Any) -> list[Any]:
        if type(message) is not kind:
            raise Malformed(f"not a {kind.__name__}: {message!r:.80}")
        if rule:
            rule(message)
        return [check(value) for check, value in zip(checks, get(message), strict=True)]

    return pack


@lru_cache(maxsize=None)
def _unpacker(kind: type) -> Check:
    """The function that turns a list of fields into an instance of `kind`."""
    checks = _field_checks(kind, False)
    count = len(checks)
    rule = _RULES.get(kind)

    def unpack(values: Any) -> Any:
        if type(values) is not list or len(values) != count:
            raise Malformed(f"{kind.__name__}: not a list of its {count} fields")
        message = kind(*[check(value) for check, value in zip(checks, values, strict=True)])
        if rule:
            rule(message)
        return message

    return unpack


def _field_checks(kind: type, packing: bool) -> list[Check]:
    hints = get_type_hints(kind)
    return [_check(hints[field.name], f"{kind.__name__}.{field.name}", packing) for field in fields(kind)]


def _check(hint: Any, where: str, packing: bool) -> Check:
    """The check of one type hint; `where` is Class.field and selects the bounds."""
    arguments = get_args(hint)
    if hint in (int, float, bool, str):
        return _scalar_check(hint, where, packing)
    if hint is Any:
        return _any_check(where, packing)
    if get_origin(hint) is Union and len(arguments) == 2 and arguments[1] is type(None):
        return _optional_check(_check(arguments[0], where, packing))
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return _items_check(_check(arguments[0], where, packing), where, packing)
    if get_origin(hint) is tuple:
        return _row_check([_check(argument, where, packing) for argument in arguments], where, packing)
    if is_dataclass(hint) and isinstance(hint, type):
        return _packer(hint) if packing else _unpacker(hint)
    raise TypeError(f"{where}: the codec knows no {hint}")


def _scalar_check(hint: type, where: str, packing: bool) -> Check:
    field = where.rpartition(".")[2]
    choices = CHOICES.get(where) or CHOICES.get(field)
    if hint is bool:
        return _bool_check(where)
    if hint is int:
        return _int_check(where, -LIMIT if field in SIGNED else 0)
    if hint is float:
        return _float_check(where, 0 if field in SPANS else -LIMIT)
    if choices:
        return _choice_check(where, choices)
    if field in NAMES:
        return _name_check(where)
    return _text_check(where, LONG.get(where, MAX_TEXT), packing)


def _bool_check(where: str) -> Check:
    def check(value: Any) -> Any:
        if value is True or value is False:
            return value
        raise _wrong(where, "true or false", value)

    return check


def _int_check(where: str, least: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) is int and least <= value <= LIMIT:
            return value
        raise _wrong(where, f"a whole number from {least} to {LIMIT}", value)

    return check


def _float_check(where: str, least: int) -> Check:
    def check(value: Any) -> Any:
        if (type(value) is float or type(value) is int) and least <= value <= LIMIT:  # false for NaN too
            return float(value)
        raise _wrong(where, f"a number from {least} to {LIMIT}", value)

    return check


def _choice_check(where: str, choices: tuple[str, ...]) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value in choices:
            return value
        raise _wrong(where, "one of " + ", ".join(choices), value)

    return check


def _name_check(where: str) -> Check:
    match = NAME.fullmatch

    def check(value: Any) -> Any:
        if isinstance(value, str) and match(value):
            return value
        raise _wrong(where, "a name (letters, digits, . _ -; at most 63)", value)

    return check


def _text_check(where: str, most: int, packing: bool) -> Check:
    """Packing cuts too long a text (a long one, such as a page of JSON, is refused) and leaves lone surrogates to encode."""
    cut = packing and most == MAX_TEXT

    def check(value: Any) -> Any:
        if isinstance(value, str):
            if len(value) <= most and (packing or value.isascii() or _encodable(value)):
                return value
            if cut:
                return value[: most - len(CUT)] + CUT
        raise _wrong(where, f"a text of at most {most} characters", value)

    return check


def _encodable(text: str) -> bool:
    """Whether it has no lone surrogates, which no terminal or log can print."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _any_check(where: str, packing: bool) -> Check:
    """A client's argument: text, number, true, false or null."""
    text, number = _text_check(where, MAX_TEXT, packing), _float_check(where, -LIMIT)

    def check(value: Any) -> Any:
        if value is None or type(value) is bool:
            return value
        if type(value) is int or type(value) is float:
            number(value)
            return value
        return text(value)

    return check


def _optional_check(inner: Check) -> Check:
    return lambda value: None if value is None else inner(value)


def _items_check(inner: Check, where: str, packing: bool) -> Check:
    source, target = (tuple, list) if packing else (list, tuple)

    def check(values: Any) -> Any:
        if type(values) is not source or len(values) > MAX_ITEMS:
            raise _wrong(where, f"at most {MAX_ITEMS} items", values)
        return target([inner(value) for value in values])

    return check


def _row_check(inner: list[Check], where: str, packing: bool) -> Check:
    """A tuple of fixed length, such as a version."""
    source, target = (tuple, list) if packing else (list, tuple)
    count = len(inner)

    def check(values: Any) -> Any:
        if type(values) is not source or len(values) != count:
            raise _wrong(where, f"{count} values", values)
        return target([one(value) for one, value in zip(inner, values, strict=True)])

    return check


def _wrong(where: str, right: str, value: Any) -> Malformed:
    """The value is shown bounded: an int of thousands of digits has no repr."""
    shown = f"an {type(value).__name__} out of range" if type(value) is int else f"{value!r:.60}"
    return Malformed(f"{where}: {shown}; right is {right}")


def _arguments_once(request: messages.Request) -> None:
    names = [name for name, _ in request.arguments]
    if len(set(names)) != len(names):
        raise Malformed("Request.arguments: one is given twice")


_RULES: dict[type, Callable[[Any], None]] = {messages.Request: _arguments_once}
_sender = _name_check("sender")

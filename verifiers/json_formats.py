"""The formats of JSON schema (2020-12, section 7.3), which its validators check only where they are given functions for it."""

import re
from collections.abc import Callable
from datetime import date, time
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)  # 2024-02-29
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:z|[-+](\d\d):(\d\d))", re.ASCII | re.IGNORECASE)  # 23:59:59.5+02:00
_DURATION = re.compile(  # P1Y2M3DT4H5M6S, PT30M, P4W
    r"P(?:\d+W|(?=\d|T\d)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)", re.ASCII
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_WIDE_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?")
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*|\"[^\"\\\r\n]+\"", re.ASCII)  # ann.b+c
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.ASCII | re.IGNORECASE)  # https:
_URI_CHARACTERS = re.compile(r"(?:[\w:/?#\[\]@!$&'()*+,;=.~-]|%[0-9a-f]{2})*+", re.ASCII | re.IGNORECASE)
_IRI_CHARACTERS = re.compile(r"(?:[\w:/?#\[\]@!$&'()*+,;=.~-]|[^\x00-\x7f\s]|%[0-9a-f]{2})*+", re.IGNORECASE)
_TEMPLATE = re.compile(r"(?:[^{}\s\"'<>\\^`|%]|%[0-9a-f]{2}|\{[+#./;?&]?[\w.%,:*]+\})*+", re.IGNORECASE)  # /users/{id}{?q}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*+)*+")  # /a/b~1c
_RELATIVE_POINTER = re.compile(r"(?:0|[1-9]\d*)(?:#|(?:/(?:[^~/]|~[01])*+)*+)", re.ASCII)  # 1/a, 0#


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    match = _TIME.fullmatch(text)
    if not match:
        return False
    hour, minute, second = int(match[1]), int(match[2]), int(match[3])
    away = (int(match[4] or 0), int(match[5] or 0))
    if away[0] > 23 or away[1] > 59:
        return False
    try:
        # A leap second is the 61st of its minute.
        time(hour, minute, min(second, 59))
    except ValueError:
        return False
    return second <= 60


def _is_date_time(text: str) -> bool:
    return len(text) > 11 and text[10] in "Tt" and _is_date(text[:10]) and _is_time(text[11:])


def _has_labels(text: str, label: re.Pattern[str]) -> bool:
    labels = text.removesuffix(".").split(".")
    return 0 < len(text) <= 253 and all(label.fullmatch(part) for part in labels)


def _is_address(text: str, label: re.Pattern[str], local: re.Pattern[str]) -> bool:
    name, at, host = text.rpartition("@")
    if not at or len(text) > 320 or not (local.fullmatch(name) or (not name.isascii() and not re.search(r"[\s@]", name))):
        return False
    if host.startswith("[") and host.endswith("]"):
        return _is_ip(host[1:-1].removeprefix("IPv6:"), IPv4Address) or _is_ip(host[1:-1].removeprefix("IPv6:"), IPv6Address)
    return _has_labels(host, label)


def _is_ip(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    return "%" not in text


def _is_reference(text: str, characters: re.Pattern[str]) -> bool:
    return characters.fullmatch(text) is not None and text.count("#") <= 1


def _is_absolute(text: str, characters: re.Pattern[str]) -> bool:
    scheme = _SCHEME.match(text)
    return scheme is not None and len(text) > scheme.end() and text[scheme.end() :] != "//" and _is_reference(text, characters)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": lambda text: text.isascii() and _is_address(text, _LABEL, _LOCAL_PART),
    "hostname": lambda text: _has_labels(text, _LABEL),
    "idn-email": lambda text: _is_address(text, _WIDE_LABEL, _LOCAL_PART),
    "idn-hostname": lambda text: _has_labels(text, _WIDE_LABEL),
    "ipv4": lambda text: _is_ip(text, IPv4Address),
    "ipv6": lambda text: _is_ip(text, IPv6Address),
    "iri": lambda text: _is_absolute(text, _IRI_CHARACTERS),
    "iri-reference": lambda text: _is_reference(text, _IRI_CHARACTERS),
    "json-pointer": lambda text: _POINTER.fullmatch(text) is not None,
    "regex": _is_pattern,
    "relative-json-pointer": lambda text: _RELATIVE_POINTER.fullmatch(text) is not None,
    "time": _is_time,
    "uri": lambda text: _is_absolute(text, _URI_CHARACTERS),
    "uri-reference": lambda text: _is_reference(text, _URI_CHARACTERS),
    "uri-template": lambda text: _TEMPLATE.fullmatch(text) is not None,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}
"""Whether a text has a format, by the format's name; a format of another name says nothing, as the standard has it."""


@lru_cache(maxsize=1)
def format_checker() -> Any:
    """The checker of these formats that jsonschema's validators take; what is no text has every format."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, has_format in FORMATS.items():
        checker.checks(name)(lambda value, has_format=has_format: not isinstance(value, str) or has_format(value))
    return checker

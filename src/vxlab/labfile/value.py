"""One value of a lab file: whether it fits its place in the form, and what to say if it does not.

The form's types (`vxlab.labfile.form`) are read with `typing`; msgspec decides what fits.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_interface
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta

from vxlab.labfile import form as labform
from vxlab.labfile.problem import quote

if TYPE_CHECKING:
    from yaml.nodes import Node, ScalarNode

#: What YAML's own types are called in full.
TAG = "tag:yaml.org,2002:"

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")
_LONGEST_TRIED = 100  # characters; hints are found by trying, which is for text a person typed


class _Unfit:
    """Stands for a value that no place in the form takes, such as a date."""


_UNFIT = _Unfit()


def scalar(node: ScalarNode) -> object:
    """A YAML scalar as the Python value it means; numbers only when written in plain decimal.

    YAML 1.1 reads 010 as 8 and 1:30 as 90, YAML 1.2 does not: no lab may depend on it.
    """
    text = node.value
    if node.tag == f"{TAG}str":
        return text
    if node.tag == f"{TAG}int" and _DECIMAL.fullmatch(text):
        return int(text)
    if node.tag == f"{TAG}bool" and text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    return _UNFIT


def convert(value: object, kind: Any) -> Any:
    """The value as the form's type has it.

    Raises:
        msgspec.ValidationError: it does not fit.
    """
    return msgspec.convert(value, kind, dec_hook=labform.parse_text)


def fits(value: object, kind: Any) -> bool:
    """Whether the form takes the value."""
    try:
        convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def describe(node: Node, kind: Any = None) -> str:
    """What is there, in the user's own characters; but not a password in a place for `ssh`."""
    from yaml.nodes import MappingNode, ScalarNode

    short = node.tag.removeprefix(TAG)
    if not isinstance(node, ScalarNode):
        of_type = "" if short in ("map", "seq") else f" of type {quote(node.tag)}"
        return ("a mapping" if isinstance(node, MappingNode) else "a list") + of_type
    if short == "null":
        return "nothing"
    if _for_ssh(kind) and _has_password(node.value):
        return "a password"
    if short in ("str", "merge", "value"):
        return quote(node.value) if node.value else "empty text"
    bare = quote(node.value)[1:-1]
    suffix = {"int": "", "float": "", "bool": ", a boolean", "timestamp": ", a date"}
    return bare + suffix.get(short, f", a value of type {quote(node.tag)}")


def wanted(kind: Any) -> str:
    """What the form takes, in words."""
    found = metas(kind)
    for meta in found:
        if meta.extra and "wanted" in meta.extra:
            return str(meta.extra["wanted"])
    for meta in found:
        if meta.ge is not None and meta.le is not None:
            return f"a whole number from {meta.ge} to {meta.le}"
    return "true or false" if bool in options(kind) else "text"


def hint(node: ScalarNode, kind: Any) -> str:
    """What would make the value fit, found by trying it."""
    text = node.value
    if node.tag == f"{TAG}null":
        return "leave the key out for the default"
    if len(text) > _LONGEST_TRIED:
        return ""
    if node.tag == f"{TAG}str":
        if _DECIMAL.fullmatch(text) and fits(int(text), kind):
            return f"write {text} without quotes"
        if text.lower() in _TRUE + _FALSE and fits(True, kind):
            return f"write {text} without quotes"
        return text_hint(text, kind)
    if fits(text, kind):
        return f'write "{text}" in quotes'
    if node.tag == f"{TAG}int" and not _DECIMAL.fullmatch(text):
        return "write it as a plain decimal number"
    return ""


def list_hint(kind: Any) -> str:
    """What would make text of what YAML takes for a list."""
    return 'write an address in brackets in quotes, such as "[::1]"' if _for_ssh(kind) else ""


def text_hint(text: str, kind: Any) -> str:
    """What would make a text fit that does not."""
    if len(text) > _LONGEST_TRIED:
        return ""
    if str not in options(kind):
        return _address_hint(text, kind)
    if _for_ssh(kind):
        return _ssh_hint(text)
    patterns = [meta.pattern for meta in metas(kind) if meta.pattern]
    if labform.INTERFACE_PATTERN in patterns and re.match("(lo|cbr0|flannel|veth)", text):
        return f"{quote(text)[1:-1]} is a name for Linux's or the lab's own interfaces"
    if text in labform.RESERVED and patterns:
        return f"{text} has a meaning of its own in vxlab"
    plain = re.sub(r"[ _.]", "-", text.strip().lower())
    return f"such as {plain}" if plain and fits(plain, kind) else ""


def _for_ssh(kind: Any) -> bool:
    return any(meta.pattern == labform.SSH_PATTERN for meta in metas(kind))


def _has_password(target: str) -> bool:
    return ":" in target.strip().removeprefix("ssh://").rpartition("@")[0]


def _ssh_hint(text: str) -> str:
    if _has_password(text):
        return "it is asked for when it is needed, and never stored"
    user, at, place = text.rpartition("@")
    host, _, port = place.rpartition(":")
    if text.startswith("-") or place.startswith("-"):
        return "OpenSSH would take it for an option"
    if fits(bare := text.strip().removeprefix("ssh://").rstrip("/"), labform.SshTarget):
        return f"such as {bare}"
    if is_ipv6(place):
        return f"an IPv6 address goes in brackets, such as {quote(f'{user}{at}[{place}]')}"
    if port.isdecimal() and fits(f"{user}{at}{host}", labform.SshTarget):
        return "a port is a number from 1 to 65535"
    return ""


def is_ipv6(text: str) -> bool:
    """Whether a host is an IPv6 address, written without brackets."""
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _address_hint(text: str, kind: Any) -> str:
    without_zeros = re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)
    if without_zeros != text and fits(without_zeros, kind):
        return f"without leading zeros, {without_zeros}"
    try:
        meant = ip_interface(text)
    except ValueError:
        return ""
    if not isinstance(meant, IPv4Interface):
        return "a lab's networks are IPv4"
    if IPv4Network in options(kind):
        if "/" not in text:
            return f"add the prefix length, such as {text}/24"
        return f"the network is {meant.network}"
    return "leave the prefix length out" if "/" in text else ""


def metas(kind: Any) -> list[Meta]:
    """What the form says about a type and, in a union, about each alternative."""
    own = kind.__metadata__ if get_origin(kind) is Annotated else ()
    inner = [meta for member in _members(kind) if member is not kind for meta in metas(member)]
    return [meta for meta in own if isinstance(meta, Meta)] + inner


def options(kind: Any) -> list[Any]:
    """The alternatives of a union, without annotations; a plain type is its only one."""
    return [_bare(member) for member in _members(kind)]


def _bare(kind: Any) -> Any:
    return kind.__origin__ if get_origin(kind) is Annotated else kind


def _members(kind: Any) -> Iterator[Any]:
    bare = _bare(kind)
    if get_origin(bare) not in (types.UnionType, typing.Union):
        yield kind
        return
    for member in get_args(bare):
        yield from _members(member)

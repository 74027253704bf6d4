"""From YAML text to the lab file's form, with the line of everything and every problem at once.

A YAML library's own loader stops at the first mistake and forgets the lines. Here the text is
composed into PyYAML's tree of marked nodes, and the tree is walked along the form's types; only the
leaves are converted, one by one (`vxlab.labfile.value`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec
from msgspec import UNSET

from vxlab.labfile import form as labform
from vxlab.labfile import value as labvalue
from vxlab.labfile.problem import Findings, Path, closest, quote
from vxlab.labfile.value import TAG, describe, wanted

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node, SequenceNode

#: Levels of nesting that are looked at. A lab file has five; a hostile one could exhaust the stack.
DEEPEST = 20

#: Values that are looked at. Aliases let a short file repeat a long list a thousand times.
MOST_VALUES = 50_000

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(text: str, source: str) -> tuple[labform.LabForm, Findings]:
    """What the user wrote about the network, as far as it can be understood.

    Args:
        text: the YAML text; an empty one is a lab made of defaults alone.
        source: the file's name for messages.
    Returns:
        The form, with defaults in place of what is wrong, and everything that is wrong.
    """
    findings = Findings(source, {(): 1})
    root = _compose(text, findings)
    form = None if root is None else _Walk(findings).value(root, labform.LabForm, ())
    return (form if isinstance(form, labform.LabForm) else labform.LabForm()), findings


def _compose(text: str, findings: Findings) -> Node | None:
    """The tree of YAML nodes; None for an empty text, and for one that is not YAML."""
    import yaml

    # Without libyaml the same tree takes ten times longer.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text.encode()  # libyaml's wrapper does this too, and does not translate the error
        deep = _too_deep(yaml.parse(text, Loader=loader))
        if deep is None:
            return yaml.compose(text, Loader=loader)
        findings.add((), "too many levels", f"at most {DEEPEST} levels of nesting", line=deep)
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        findings.add((), "half a character, a lone surrogate", "Unicode text", line=line)
    except yaml.reader.ReaderError as error:
        _unprintable(text, str(error.reason), findings)
    except yaml.MarkedYAMLError as error:
        _syntax_error(text, error, findings)
    except (ValueError, OverflowError) as error:
        # PyYAML's own scanner calls int() and chr() on a directive's version and on escapes.
        findings.add((), "broken YAML", "well-formed YAML", f"PyYAML says: {quote(str(error))}")
    return None


def _too_deep(events: Iterator[Any]) -> int | None:
    """The line on which the nesting goes beyond `DEEPEST`; PyYAML's composer would recurse."""
    from yaml.events import CollectionEndEvent, CollectionStartEvent

    level = 0
    for event in events:
        if isinstance(event, CollectionStartEvent):
            level += 1
        elif isinstance(event, CollectionEndEvent):
            level -= 1
        if level > DEEPEST:
            return int(event.start_mark.line) + 1
    return None


def _unprintable(text: str, reason: str, findings: Findings) -> None:
    # PyYAML counts characters, libyaml bytes: looking for the culprit is simpler than converting.
    culprit = _UNPRINTABLE.search(text)
    line = text.count("\n", 0, culprit.start()) + 1 if culprit else 1
    found = f"the character {culprit.group()!a}" if culprit else f"unreadable text, {reason}"
    findings.add((), found, "printable text", line=line)


def _syntax_error(text: str, error: Any, findings: Findings) -> None:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    line = max(1, min(mark.line + 1, len(lines))) if mark else 1
    if error.problem == "but found another document":
        findings.add((), "a second YAML document", "one lab per file", line=line)
        return
    indent = re.match(r"\s*", lines[line - 1])
    tab = indent is not None and "\t" in indent.group()
    said = " ".join(part for part in (error.problem, error.context) if part)
    hint = "indent with spaces, YAML forbids tabs" if tab else f"YAML says: {said}"
    findings.add((), "broken YAML", "well-formed YAML", hint, line=line)


class _Walk:
    """One walk through a tree of YAML nodes along the form's types."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._open: set[int] = set()  # nodes being walked; meeting one again is an alias cycle
        self._walked = 0

    def _enough(self) -> bool:
        """Count one more value; whether the walk has seen too many, or has said enough."""
        self._walked += 1
        if self._walked == MOST_VALUES:
            self.findings.add((), f"more than {MOST_VALUES} values", "a smaller lab")
        return self._walked >= MOST_VALUES or self.findings.full

    def value(self, node: Node, kind: Any, path: Path) -> Any:
        """The node's value, or ``UNSET`` where it is wrong."""
        if id(node) in self._open:
            self.findings.add(path, "an alias that contains itself", "a value")
            return UNSET
        self._open.add(id(node))
        value = self._value(node, kind, path)
        self._open.discard(id(node))
        return value

    def _value(self, node: Node, kind: Any, path: Path) -> Any:
        from yaml.nodes import MappingNode, SequenceNode

        options = labvalue.options(kind)
        structs = [option for option in options if _is_struct(option)]
        by_origin = {get_origin(option): option for option in options}
        if isinstance(node, MappingNode) and node.tag == f"{TAG}map":
            if structs:
                struct = self._backend(node, structs, path) if len(structs) > 1 else structs[0]
                return UNSET if struct is None else self._struct(node, struct, path)
            if dict in by_origin:
                sized = self._sized(node, kind, path)
                return self._mapping(node, by_origin[dict], path) if sized else UNSET
        if isinstance(node, SequenceNode) and node.tag == f"{TAG}seq" and list in by_origin:
            return (
                self._list(node, by_origin[list], path) if self._sized(node, kind, path) else UNSET
            )
        if structs or dict in by_origin:
            return self._no_mapping(node, path)
        return self._leaf(node, kind, path)

    def _no_mapping(self, node: Node, path: Path) -> Any:
        # A key with nothing after it is what remains when its children are commented out.
        if node.tag == f"{TAG}null":
            return None if path else UNSET
        self.findings.add(path, describe(node), "a mapping of keys to values")
        return UNSET

    def _leaf(self, node: Node, kind: Any, path: Path) -> Any:
        from yaml.nodes import ScalarNode, SequenceNode

        hint = labvalue.list_hint(kind) if isinstance(node, SequenceNode) else ""
        if isinstance(node, ScalarNode):
            value = labvalue.scalar(node)
            if labvalue.fits(value, kind):
                return labvalue.convert(value, kind)
            hint = labvalue.hint(node, kind)
        self.findings.add(path, describe(node, kind), wanted(kind), hint)
        return UNSET

    def _backend(self, node: MappingNode, structs: list[Any], path: Path) -> Any:
        """The form of flannel's backend: its Type decides which other options there are."""
        by_type = {struct.__struct_config__.tag: struct for struct in structs}
        value = next((v for k, v in node.value if k.id == "scalar" and k.value == "Type"), None)
        if value is None:
            return by_type["vxlan"]
        text = value.value if value.id == "scalar" else ""
        if text in by_type:
            return by_type[text]
        self.findings.lines[(*path, "Type")] = value.start_mark.line + 1
        known = ", ".join(by_type)
        hint = _did_you_mean(closest(text, by_type))
        self.findings.add((*path, "Type"), describe(value), f"one of {known}", hint)
        self.findings.doubt(path)
        return None

    def _struct(self, node: MappingNode, struct: Any, path: Path) -> Any:
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        tag = struct.__struct_config__.tag_field
        values = {}
        for key, child in self._items(node, path):
            if key in fields:
                value = self.value(child, fields[key].type, (*path, key))
                if value is not UNSET:
                    values[fields[key].name] = value
            elif key != tag:
                self._unknown_key(key, [tag, *fields] if tag else [*fields], path)
        return struct(**values)

    def _unknown_key(self, key: str, known: list[str], path: Path) -> None:
        meant = closest(key, known)
        hint = _did_you_mean(meant)
        owners = labform.BACKEND_OPTIONS.get(key, ())
        if path == ("overlay", "backend") and owners:
            hint = f"an option of Type {' and '.join(owners)} only"
        elif key == "<<":
            hint = "merge keys are not understood, write the values out"
        if meant:
            self.findings.doubt((*path, meant))
        self.findings.add((*path, key), "an unknown key", f"one of {', '.join(known)}", hint)

    def _mapping(self, node: MappingNode, kind: Any, path: Path) -> dict[str, Any]:
        key_kind, value_kind = get_args(kind)
        values = {}
        for key, child in self._items(node, path):
            if not labvalue.fits(key, key_kind):
                hint = labvalue.text_hint(key, key_kind)
                # The name is wrong, what it stands for can still be looked at.
                here = (*path, key)
                self.findings.add(here, quote(key), wanted(key_kind), hint, doubt=False)
            value = self.value(child, value_kind, (*path, key))
            values[key] = None if value is UNSET else value
        return values

    def _list(self, node: SequenceNode, kind: Any, path: Path) -> list[Any]:
        """The items; a wrong one becomes an empty string, so that positions stay true."""
        (item_kind,) = get_args(kind)
        values = []
        for position, child in enumerate(node.value):
            if self._enough():
                break
            here = (*path, position)
            self.findings.lines[here] = child.start_mark.line + 1
            value = self.value(child, item_kind, here)
            values.append("" if value is UNSET else value)
        return values

    def _items(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node]]:
        """The keys that are text and there once; what is wrong with the others is noted."""
        first_line: dict[str, int] = {}
        for key, child in node.value:
            if self._enough():
                break
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.tag not in (f"{TAG}str", f"{TAG}merge", f"{TAG}value"):
                hint = f'write "{key.value}" in quotes' if _is_word(key) else ""
                found = f"{describe(key)} as a key"
                self.findings.add(path, found, "a name as a key", hint, line=line, doubt=False)
            elif key.value in first_line:
                hint = f"the first is in line {first_line[key.value]}"
                here = (*path, key.value)
                self.findings.add(here, "the same key again", "every key once", hint, line=line)
            else:
                first_line[key.value] = self.findings.lines[(*path, key.value)] = line
                yield key.value, child

    def _sized(self, node: Node, kind: Any, path: Path) -> bool:
        """Whether a list or mapping is of a size the form allows; asked before it is walked."""
        metas = labvalue.metas(kind)
        most = min(meta.max_length for meta in metas if meta.max_length is not None)
        least = max((meta.min_length or 0) for meta in metas)
        if least <= len(node.value) <= most:
            return True
        self.findings.add(path, f"{len(node.value)} entries", wanted(kind))
        return False


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_word(key: Node) -> bool:
    return isinstance(key.value, str) and key.value.isalpha() and len(key.value) <= 15


def _did_you_mean(word: str) -> str:
    return f"did you mean {word}?" if word else ""

"""Read one YAML or JSON file into plain values, remembering on which line everything stands.

Built on the parser's events, not on its composer, so that depth, number of values and aliases are bounded before
anything is made of them, duplicate keys are found, and tags never construct objects. Keys are text as written.
What the values mean is left to others. No message quotes a value of the file: it may be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.reader import ReaderError

from model.problem import InvalidConfigurationError, Problem, child_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 200_000  # after aliases are followed

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_MERGE = _CORE + "merge"
_CONSTRUCT: Any = SafeConstructor()
_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value with a tag of CloudFormation's kind, such as `!Ref queue`; `tag` without the exclamation mark."""

    tag: str
    value: object


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds."""

    file: str
    value: object = None
    lines: dict[str, int] = field(default_factory=dict)  # by path; 1-based
    problems: list[Problem] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)  # (path, tag) of every `Tagged`

    def locate(self, problem: Problem) -> Problem:
        """Return the problem with this file and the line of the nearest place that stands in it."""
        path = problem.path
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return Problem(problem.path, problem.rule, self.file, self.lines.get(path, 1))


def read_document(path: Path) -> Document:
    """Read a file. Raises `InvalidConfigurationError` if it cannot be read, or is not one YAML or JSON document.

    Duplicate keys and the like are returned as problems, so that the rest can be checked as well.
    """
    file = str(path)
    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise _invalid(file, 0, f"cannot be read: {exc.strerror or type(exc).__name__}") from exc
    except ValueError as exc:
        raise _invalid(file, 0, "cannot be read: not a file name") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise _invalid(file, 0, f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _invalid(file, raw[: exc.start].count(b"\n") + 1, "is not UTF-8 text") from exc
    return parse_document(text, file=file)


def parse_document(text: str, *, file: str) -> Document:
    """Parse the text of a file; see `read_document`."""
    if text.lstrip()[:1] in ("{", "["):
        # JSON that is no YAML: tabs between tokens, and characters written as surrogate pairs.
        text = _SURROGATES.sub(_joined, text.replace("\t", " "))
    try:
        root = _Composer(file).compose(yaml.parse(text, Loader=_LOADER))
    except ReaderError as exc:
        line = text.encode()[: exc.position].count(b"\n") + 1
        raise _invalid(file, line, "holds a character that YAML does not allow") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        what = re.sub(r"\s*(['\"]).*?\1", "", exc.problem or exc.context or "")
        raise _invalid(file, mark.line + 1 if mark else 0, f"is not valid YAML: {what}") from exc
    except yaml.YAMLError as exc:
        raise _invalid(file, 0, "is not valid YAML") from exc
    document = Document(file)
    value = None if root is None else _Expansion(document).value(root, "", 0)
    return Document(file, value, document.lines, document.problems, document.tags)


def without_tags(value: object) -> object:
    """Return the value with every `Tagged` in it replaced by what it holds."""
    match value:
        case Tagged():
            return without_tags(value.value)
        case dict():
            return {key: without_tags(item) for key, item in value.items()}
        case list():
            return [without_tags(item) for item in value]
        case _:
            return value


class _Node:
    """A value of the file before aliases are followed."""

    __slots__ = ("done", "items", "line", "pairs", "plain", "tag", "text")

    def __init__(self, line: int, tag: str | None) -> None:
        self.line = line
        self.tag = tag
        self.text: str | None = None  # of a scalar
        self.plain = False
        self.items: list[_Node] | None = None  # of a sequence
        self.pairs: list[tuple[_Node, _Node]] | None = None  # of a mapping
        self.done = False


class _Composer:
    """Makes the tree of nodes out of the parser's events, within the bounds."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, _Node] = {}
        self._open: list[_Node] = []
        self._keys: list[_Node | None] = []  # per open node: the key that waits for its value
        self._root: _Node | None = None
        self._count = 0

    def compose(self, events: Iterator[Any]) -> _Node | None:
        """Return the root; None for an empty file."""
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _invalid(self._file, _line(event), "holds more than one YAML document")
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                self._open.pop().done = True
                self._keys.pop()
            elif isinstance(event, yaml.NodeEvent):
                self._take(event, _line(event))
        return self._root

    def _take(self, event: Any, line: int) -> None:
        node = self._named(str(event.anchor), line) if isinstance(event, yaml.AliasEvent) else _node(event, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._count += 1
        if self._count > MAX_VALUES:
            raise _invalid(self._file, line, f"holds more than {MAX_VALUES} values")
        self._attach(node)
        if not node.done:
            self._open.append(node)
            self._keys.append(None)
            if len(self._open) > MAX_DEPTH:
                raise _invalid(self._file, line, f"is nested more than {MAX_DEPTH} levels deep")

    def _named(self, anchor: str, line: int) -> _Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _invalid(self._file, line, "is not valid YAML: an alias names no anchor before it")
        if not node.done:
            raise _invalid(self._file, line, "an alias stands inside what it names")
        return node

    def _attach(self, node: _Node) -> None:
        if not self._open:
            self._root = node
            return
        parent, key = self._open[-1], self._keys[-1]
        if parent.items is not None:
            parent.items.append(node)
        elif key is None:
            self._keys[-1] = node
        else:
            if parent.pairs is not None:
                parent.pairs.append((key, node))
            self._keys[-1] = None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _node(event: Any, line: int) -> _Node:
    node = _Node(line, event.tag)
    if isinstance(event, yaml.ScalarEvent):
        node.text, node.plain, node.done = event.value, not event.style, True
    elif isinstance(event, yaml.SequenceStartEvent):
        node.items = []
    else:
        node.pairs = []
    return node


class _Expansion:
    """Turns nodes into values. A node that has aliases is visited once per path."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def value(self, node: _Node, path: str, depth: int) -> object:
        """Return the value of a node, noting its line."""
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise _invalid(self._document.file, node.line, "is too large or too deep once its aliases are followed")
        self._document.lines.setdefault(path, node.line)
        if node.text is not None:
            return self._scalar(node, path)
        inner: object
        if node.items is not None:
            inner = [self.value(item, child_path(path, i), depth + 1) for i, item in enumerate(node.items)]
            return self._tagged(node, inner, path, (_CORE + "seq",))
        result: dict[str, object] = {}
        self._mapping(node, result, path, depth)
        return self._tagged(node, result, path, (_CORE + "map",))

    def _mapping(self, node: _Node, into: dict[str, object], path: str, depth: int) -> None:
        own: set[str] = set()
        merged: list[_Node] = []
        for key, item in node.pairs or []:
            if key.text is None:
                self._problem(path, "keys must be text, not a list or a mapping", key.line)
            elif key.text == "<<" and key.plain:
                merged.extend(item.items if item.items is not None else [item])
            elif key.text in own:
                self._problem(child_path(path, key.text), "is given twice", key.line)
            else:
                own.add(key.text)
                below = child_path(path, key.text)
                self._document.lines[below] = key.line
                into[key.text] = self.value(item, below, depth + 1)
        for source in merged:
            self._count += 1
            if source.pairs is None:
                self._problem(path, "<< must name a mapping", source.line)
                continue
            if self._count > MAX_VALUES or depth > MAX_DEPTH:
                raise _invalid(self._document.file, node.line, "is too large or too deep once its aliases are followed")
            other: dict[str, object] = {}
            self._mapping_of_merge(source, other, path, depth, into)
            into.update(other)

    def _mapping_of_merge(
        self, source: _Node, other: dict[str, object], path: str, depth: int, into: dict[str, object]
    ) -> None:
        # Keys that stand in the mapping itself, or came from an earlier merge, win: only the rest is expanded.
        rest = _Node(source.line, source.tag)
        rest.pairs = [
            (key, item) for key, item in source.pairs or [] if key.text not in into or (key.text == "<<" and key.plain)
        ]
        nested: dict[str, object] = {}
        self._mapping(rest, nested, path, depth + 1)
        other.update({key: item for key, item in nested.items() if key not in into})

    def _scalar(self, node: _Node, path: str) -> object:
        text, tag = node.text or "", node.tag
        if tag is None or tag == "!":
            tag = _implicit_tag(text) if node.plain and tag is None else _CORE + "str"
        if tag.startswith(_CORE) and (construct := _SCALARS.get(tag.removeprefix(_CORE))) is not None:
            try:
                return construct(yaml.ScalarNode(tag, text))
            except (ValueError, OverflowError, KeyError, AttributeError, IndexError, ConstructorError):
                self._problem(
                    path, f"is not a valid {tag.removeprefix(_CORE)}; put it in quotes if it is text", node.line
                )
                return None
        return self._tagged(node, text, path, (_CORE + "str",))

    def _tagged(self, node: _Node, value: object, path: str, plain: tuple[str, ...]) -> object:
        tag = node.tag
        if tag is None or tag == "!" or tag in plain:
            return value
        if tag.startswith("!"):
            self._document.tags.append((path, tag))
            return Tagged(tag[1:], value)
        self._problem(path, "has a tag that is not known here", node.line)
        return None

    def _problem(self, path: str, rule: str, line: int) -> None:
        self._document.problems.append(Problem(path, rule, self._document.file, line))


_SCALARS: dict[str, Any] = {
    "null": lambda _: None,
    "str": lambda node: node.value,
    "value": lambda node: node.value,
    "merge": lambda node: node.value,
    "bool": _CONSTRUCT.construct_yaml_bool,
    "int": _CONSTRUCT.construct_yaml_int,
    "float": _CONSTRUCT.construct_yaml_float,
    "timestamp": _CONSTRUCT.construct_yaml_timestamp,
}


def _implicit_tag(text: str) -> str:
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, form in resolvers.get(text[:1], []):
        if form.match(text):
            return str(tag)
    return _CORE + "str"


def _joined(pair: re.Match[str]) -> str:
    return bytes.fromhex(pair[1] + pair[2]).decode("utf-16-be")


def _invalid(file: str, line: int, rule: str) -> InvalidConfigurationError:
    return InvalidConfigurationError([Problem("", rule, file, line)])

"""YAML sequences of mappings with the place of every key and value.

Knows YAML's events and never builds anything from a tag: depth, aliases and tags are bounded while
reading, so that no file can grow in memory. Doesn't know what the fields of a fact are.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from store.cells import Cursor, Fault, Member, Place, RawRow, Rows, located

MAX_DEPTH = 8
MAX_ALIASES = 100
MAX_VALUES = 2_000  # of one record, keys included; all its fields together may hold a quarter of that
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_FORM = "- subject: ..."
# By words of the parser's complaint.
_HINTS = (
    ("mapping values are not allowed", "put text that holds ': ' in quotes, or mend the indent"),
    ("cannot start any token", "put text that begins with this character in quotes"),
    ("tab character", "indent with spaces"),
    ("expected ',' or", "put text that begins with { or [ in quotes"),
    ("expected <document start>", "one list a file"),
    ("alphabetic or numeric character", "put text that begins with * or & in quotes"),
)
_KEPT_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"}


class _Cell(NamedTuple):
    """A value and where it starts."""

    value: "str | int | float | bool | list[_Cell] | _Mapping | None"
    place: Place


class _Mapping:
    """A mapping's keys and values in order, duplicates and all."""

    def __init__(self) -> None:
        self.pairs: list[tuple[_Cell, _Cell]] = []


def read_yaml(text: str) -> Rows:
    """One sequence of mappings; broken syntax, tags, a second document or too many aliases end the
    file, an element that isn't a mapping doesn't."""
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        place = Cursor(text).at(unprintable.start())
        raise Fault("syntax", f"YAML doesn't allow the character U+{ord(unprintable.group()):04X}", *place)
    try:
        for item in _Builder(text).items():
            yield _row(item)
    except yaml.YAMLError as error:
        raise _broken(text, error) from None


def _broken(text: str, error: yaml.YAMLError) -> Fault:
    """The parser's complaint; at the end of the text it is about what was opened and never closed."""
    problem = str(getattr(error, "problem", None) or "this isn't YAML")
    mark, opened = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if opened and (not mark or mark.index >= len(text.rstrip())) and not problem.startswith("mapping values"):
        return Fault("syntax", "what begins here is never closed", *Cursor(text).at(opened.index),
                     hint="close the quote or the bracket")  # fmt: skip
    mark = mark or opened
    place = Cursor(text).at(mark.index) if mark else (1, 1)
    hint = next((hint for words, hint in _HINTS if words in problem), "")
    return Fault("syntax", problem, *place, hint=hint)


def _row(item: _Cell) -> RawRow | Fault:
    if not isinstance(item.value, _Mapping):
        return Fault("type", "a record must be a mapping", *item.place, hint=_FORM)
    members = []
    for key, value in item.value.pairs:
        if not isinstance(key.value, str):
            return Fault("type", "a key must be text", *key.place, hint="put it in quotes")
        if key.value == "<<":
            return Fault("merge", "merge keys aren't read", *key.place, hint="write the fields out")
        items = value.value if isinstance(value.value, list) else []
        places = [cell.place for cell in items]
        members.append(Member(key.value, key.place, _plain(value), value.place, places))
    return located(item.place, members)


def _plain(cell: _Cell) -> Any:
    if isinstance(cell.value, list):  # deeper lists are as wrong as objects are
        return [{} if isinstance(item.value, list | _Mapping) else item.value for item in cell.value]
    return {} if isinstance(cell.value, _Mapping) else cell.value


class _Builder:
    """Turns events into cells, without recursion."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._cursor = Cursor(text)
        self._anchors: dict[str, _Cell] = {}
        self._aliases = 0
        self._resolver = yaml.resolver.Resolver()

    def items(self) -> Iterator[_Cell]:
        """The entries of the one document's one list, each as soon as it is complete, so that no more
        than one of them is held. Nothing when there is no document."""
        open_cells: list[_Cell] = []
        keys: list[_Cell | None] = []  # for each open cell, the key that waits for its value
        values = 0
        for event in self._events():
            if isinstance(event, yaml.CollectionEndEvent):
                cell = open_cells.pop()
                keys.pop()
            else:
                cell = self._cell(event)
                values = values + 1 if len(open_cells) > 1 else 0
                if values > MAX_VALUES:
                    raise Fault("too_long", f"a record of more than {MAX_VALUES} values", *cell.place,
                                hint="one fact a record")  # fmt: skip
                if not open_cells and not isinstance(cell.value, list):
                    raise Fault("type", "the file must hold one list of records", *cell.place, hint=_FORM)
                if len(open_cells) > 1:
                    keys[-1] = _put(open_cells[-1], keys[-1], cell)
                if isinstance(event, yaml.CollectionStartEvent):
                    open_cells.append(cell)
                    keys.append(None)
                    if len(open_cells) > MAX_DEPTH:
                        raise Fault("too_deep", "values are nested too deeply", *cell.place, hint=_FORM)
                    continue
            if len(open_cells) == 1:
                yield cell

    def _events(self) -> Iterator[yaml.NodeEvent | yaml.CollectionEndEvent]:
        """Events that carry values; refuses a second document."""
        documents = 0
        for event in yaml.parse(self._text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    place = self._place(event)
                    raise Fault("syntax", "a second document begins", *place, hint="one list a file")
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                yield event

    def _place(self, event: yaml.Event) -> Place:
        return self._cursor.at(event.start_mark.index if event.start_mark else 0)

    def _cell(self, event: yaml.NodeEvent) -> _Cell:
        place = self._place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in {"!", *_KEPT_TAGS}:
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")[:60]
            raise Fault("tag", f"the tag {shown!r} isn't allowed", *place, hint="write plain values")
        cell = _Cell(self._value(event), place)
        if event.anchor is not None:
            if len(self._anchors) >= MAX_ALIASES:  # each keeps its value in memory
                raise Fault("alias", f"more than {MAX_ALIASES} anchors", *place, hint="write the values out")
            self._anchors[event.anchor] = cell
        return cell

    def _alias(self, event: yaml.AliasEvent, place: tuple[int, int]) -> _Cell:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise Fault("alias", f"more than {MAX_ALIASES} aliases", *place, hint="write the values out")
        target = self._anchors.get(str(event.anchor))
        if target is None:
            raise Fault("alias", f"the anchor {str(event.anchor)[:60]!r} isn't known here", *place,
                        hint="put text that begins with * in quotes")  # fmt: skip
        return _Cell(target.value, place)

    def _value(self, event: yaml.NodeEvent) -> "str | int | float | bool | list[_Cell] | _Mapping | None":
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return [] if isinstance(event, yaml.SequenceStartEvent) else _Mapping()

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        """Text, whole numbers, null; what YAML calls a time stays text, the rest is its own type."""
        text = event.value
        # Typed as untyped in types-PyYAML.
        tag = event.tag or self._resolver.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        kind = str(tag).removeprefix("tag:yaml.org,2002:")
        if kind == "null":
            return None
        if kind == "bool":
            return True
        if kind == "int" and _INTEGER.fullmatch(text):
            return int(text)
        return 0.5 if kind in {"int", "float"} else text


def _put(parent: _Cell, key: _Cell | None, cell: _Cell) -> _Cell | None:
    """Add to an open cell; returns the key that now waits."""
    if isinstance(parent.value, list):
        parent.value.append(cell)
        return None
    if key is None:
        return cell
    if isinstance(parent.value, _Mapping):
        parent.value.pairs.append((key, cell))
    return None

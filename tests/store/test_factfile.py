"""Fact files of every format: what is read, and what is refused at which line and column."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from store.errors import FactFileError
from store.factfile import is_fact_file, parse
from store.facts import FactKey, FactUpdate, Op, Priority
from store.names import normalise
from store.spelling import flaw_in_name, flaw_in_text

GOOD = '{"subject": "Peru", "relation": "capital", "object": "Lima"}'
Fault = tuple[str, int, int]


def faults(text: str | bytes, name: str) -> list[Fault]:
    """Code, line and column of every fault, whether of rows or of the file."""
    data = text.encode() if isinstance(text, str) else text
    try:
        errors = list(parse(data, name).errors)
    except FactFileError as error:
        errors = [error]
    return [(error.code, error.line, error.column) for error in errors]


def test_every_field_is_read() -> None:
    """A record with all fields becomes an update with all fields."""
    record = {
        "subject": " Péru ", "relation": "capital", "object": "Lima", "op": "upsert", "aliases": ["Ciudad"],
        "old": "Cusco", "old_aliases": ["Qosqo"], "effective_at": "2026-01-31T09:00:00+02:00", "version": 3,
        "source": "atlas", "priority": "high", "note": " seen ", "prompts": ["Where is {subject}'s seat?"],
        "paraphrases": ["{subject} is run from"],
    }  # fmt: skip
    (read,) = parse(json.dumps(record).encode(), "a.jsonl").updates
    assert read == FactUpdate(
        FactKey("Péru", "capital"), "Lima", Op.UPSERT, ("Ciudad",), "Cusco", ("Qosqo",),
        datetime(2026, 1, 31, 7, tzinfo=UTC), 3, "atlas", Priority.HIGH, "seen",
        ("Where is {subject}'s seat?",), ("{subject} is run from",), 1,
    )  # fmt: skip


def test_the_object_of_a_retraction_is_what_to_forget() -> None:
    """`object` and `aliases` of a retraction are read as `old` and `old_aliases`."""
    row = '{"op":"retract","subject":"a","relation":"b","object":"c","aliases":["d"]}'
    (read,) = parse(row.encode(), "a.jsonl").updates
    assert (read.object, read.aliases, read.old, read.old_aliases) == (None, (), "c", ("d",))


def test_names_say_formats_and_snapshots() -> None:
    """The ending decides the format; a snapshot takes its source from rows, else from its name."""
    assert [is_fact_file(name) for name in ("a.jsonl", "a.NDJSON", "a.b.yml", "a.txt", "jsonl")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    named = parse(GOOD.encode(), "atlas.snapshot.jsonl")
    assert (named.snapshot, named.source, named.updates[0].source) == (True, "atlas", "atlas")
    stated = parse(b"subject,relation,object,source\na,b,c,hr\nd,e,f,\n", "2026-01.snapshot.csv")
    assert (stated.source, stated.updates[1].source) == ("hr", "hr")
    assert not parse(GOOD.encode(), "atlas.jsonl").snapshot


ROW_FAULTS = [
    ('{"subject": "é", "colour": 1}', "unknown_key", 18),
    ('{"subject": "a", "relation": "b"}', "missing", 1),
    ('  {"subject": "a", "relation": "b", "object": " "}', "missing", 47),
    ('{"relation": "b", "object": "c"}', "missing", 1),
    ('{"subject": "a", "relation": "b", "object": 7}', "type", 45),
    ('{"subject": "a", "relation": "b", "object": {"x": 1}}', "type", 45),
    ('{"subject": "a", "relation": "b", "object": "c", "aliases": "d"}', "type", 61),
    ('{"subject": "a", "relation": "b", "object": "c", "aliases": ["d", 3]}', "type", 67),
    ('{"subject": "a", "relation": "b", "object": "c", "aliases": ["d", " "]}', "empty", 67),
    ('{"subject": "a", "relation": "b", "object": "c", "effective_at": "2026-01-31"}', "bad_time", 66),
    ('{"subject": "a", "relation": "b", "object": "c", "effective_at": "2026-02-30T00:00:00Z"}',
     "bad_time", 66),
    ('{"subject": "a", "relation": "b", "object": "c", "effective_at": "0001-01-01T00:00:00+09:00"}',
     "bad_time", 66),
    ('{"subject": "a", "relation": "b", "object": "c", "version": -1}', "bad_value", 61),
    ('{"subject": "a", "relation": "b", "object": "c", "version": true}', "bad_value", 61),
    ('{"subject": "a", "relation": "b", "object": "c", "version": 9223372036854775808}', "bad_value", 61),
    ('{"subject": "a", "relation": "b", "object": "c", "priority": "urgent"}', "bad_value", 62),
    ('{"subject": "a", "relation": "b", "object": "c", "op": "delete"}', "bad_value", 56),
    ('{"subject": "a", "relation": "b", "op": "retract", "object": "c", "old": "d"}', "bad_value", 62),
    ('{"subject": "a\\u0000", "relation": "b", "object": "c"}', "bad_text", 13),
    ('{"subject": "\\ud800", "relation": "b", "object": "c"}', "bad_text", 13),
    ('{"subject": "' + "a" * 1001 + '", "relation": "b", "object": "c"}', "too_long", 13),
    ('{"subject": "a", "subject": "b"}', "duplicate_key", 18),
    ('{"subject": "a", "relation": "b", "object": NaN}', "syntax", 45),
    ('{"subject": "a", "version": ' + "9" * 5000 + "}", "syntax", 29),
    ('{"subject": "a", "relation" "b"}', "syntax", 29),
    ('{"subject": "a",}', "syntax", 16),
    ('{"subject": "a"', "syntax", 16),
    ('{"subject": "a', "syntax", 13),
    ('{"subject": "a"} {}', "syntax", 18),
    ("[1]", "type", 1),
    ("nonsense", "type", 1),
    ('{"subject": ' + "[" * 100_000 + "}", "too_deep", 14),
]  # fmt: skip


@pytest.mark.parametrize(("row", "code", "column"), ROW_FAULTS, ids=range(len(ROW_FAULTS)))
def test_a_bad_line_is_refused_where_it_is_wrong(row: str, code: str, column: int) -> None:
    """A bad JSON line is its own fault, at its line and column; the lines around it are read."""
    assert faults(f"{GOOD}\n\n{row}\n{GOOD}\n", "a.jsonl") == [(code, 3, column)]
    assert len(parse(f"{GOOD}\n{row}\n{GOOD}".encode(), "a.jsonl").updates) == 2


def test_a_json_array_counts_lines_and_columns_over_the_whole_file() -> None:
    """Faults of array elements are placed in the file, not in their element."""
    text = f'[\n  {GOOD},\n  {{"subject": "é",\n   "relation": "b",\n   "object": 7}},\n  3, {GOOD}\n]'
    assert faults(text, "a.json") == [("type", 5, 14), ("type", 6, 3)]
    assert [read.line for read in parse(text.encode(), "a.json").updates] == [2, 6]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", ("syntax", 1, 1)),
        ('[\n {"a": 1}\n {"b": 2}]', ("syntax", 3, 2)),
        ('[\n {"a": tru}]', ("syntax", 2, 8)),
        (f"[{GOOD}", ("syntax", 1, 2 + len(GOOD))),
        (f"[{GOOD}]\n x", ("syntax", 2, 2)),
        ("[\n" + "[" * 100_000, ("type", 2, 1)),
        ("[]", ("empty_file", 1, 1)),
    ],
)
def test_a_broken_array_ends_the_file(text: str, fault: Fault) -> None:
    """Broken syntax in an array can't be stepped over, so the whole file is refused."""
    assert faults(text, "a.json") == [fault]


def test_csv_faults_name_the_cell() -> None:
    """Faults of CSV rows are at their cell, also after cells with line breaks and quotes."""
    text = 'subject,relation,object,aliases\nA,r,"x ""y"",\nz",a| b\n\nB,r,,\n"C, D",r\nE,r,x,y,z\nF,r,\a,\n'
    assert faults(text, "a.csv") == [
        ("missing", 5, 5),
        ("syntax", 6, 8),
        ("syntax", 7, 9),
        ("bad_text", 8, 5),
    ]
    (read,) = parse(text.encode(), "a.csv").updates
    assert (read.key.subject, read.object, read.aliases, read.line) == ("A", 'x "y", z', ("a", "b"), 2)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Peru,capital,Lima\n", ("no_header", 1, 1)),
        ("", ("empty_file", 1, 1)),
        ("subject,relation,colour\n", ("unknown_key", 1, 18)),
        ("subject,relation,subject\n", ("duplicate_key", 1, 18)),
        ("subject,object\n", ("missing", 1, 1)),
        ("subject,relation,object\nA,r,x\nB,r,\"y\nC,r,z\n", ("syntax", 3, 5)),
        ('subject,relation,object\nA,r,"x"y\n', ("syntax", 2, 8)),
        ('subject,relation,object\nA,r,x"y\n', ("syntax", 2, 6)),
        ("subject,relation,object\n", ("empty_file", 1, 1)),
    ],
)  # fmt: skip
def test_a_broken_csv_ends_the_file(text: str, fault: Fault) -> None:
    """A missing or wrong header and a broken quote refuse the whole file."""
    assert faults(text, "a.csv") == [fault]


def test_yaml_faults_name_the_place() -> None:
    """Faults of YAML rows are at their key or value, also after characters outside the BMP."""
    text = (
        "- subject: Peru\n  relation: capital\n  object: Lima\n  effective_at: 2026-01-31T09:00:00Z\n"
        "- {subject: é𝄞, colour: 1}\n- subject: a\n  relation: b\n  object: no\n- 3\n"
        "- subject: a\n  subject: b\n- {subject: a, relation: b, object: c, version: 0o7}\n"
        "- {subject: a, relation: b, object: c, aliases: [x, [y]]}\n"
    )
    assert faults(text, "a.yaml") == [
        ("unknown_key", 5, 17), ("type", 8, 11), ("type", 9, 3), ("duplicate_key", 11, 3),
        ("bad_value", 12, 49), ("type", 13, 53),
    ]  # fmt: skip
    (read,) = parse(text.encode(), "a.yml").updates
    assert read.effective_at == datetime(2026, 1, 31, 9, tzinfo=UTC)


BOMB = "- &a [x, x]\n- &b [*a, *a]\n- [" + "*b, " * 200 + "*b]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, ("alias", 3, 4 + 98 * 4)),
        ("- *nobody\n", ("alias", 1, 3)),
        ("- &a [*a]\n", ("type", 1, 3)),
        ("- !!python/object/apply:os.system [ls]\n", ("tag", 1, 3)),
        ("- subject: !secret x\n", ("tag", 1, 12)),
        ("[" * 100_000, ("too_deep", 1, 9)),
        ("a: 1\n", ("type", 1, 1)),
        ("- subject: é𝄞 \a\n", ("syntax", 1, 15)),
        ("- a\n\t- b", ("syntax", 2, 1)),
        ("---\n- 1\n---\n- 2\n", ("syntax", 3, 1)),
        ("# nothing\n", ("empty_file", 1, 1)),
    ],
)
def test_hostile_yaml_is_refused(text: str, fault: Fault) -> None:
    """Alias bombs, tags, depth, second documents and broken syntax are refused where they are."""
    assert faults(text, "a.yaml") == [fault]


def test_a_few_yaml_aliases_are_read() -> None:
    """Anchors that share a value are fine."""
    text = "- &one {subject: a, relation: b, object: c, aliases: &names [x, y]}\n- *one\n"
    assert [read.aliases for read in parse(text.encode(), "a.yaml").updates] == [("x", "y")] * 2


@pytest.mark.parametrize(
    ("data", "name", "fault"),
    [
        (b'{"a": 1}\n\xc3\xa9b\xff', "a.jsonl", ("not_utf8", 2, 3)),
        (b"\xef\xbb\xbfab\xff", "a.jsonl", ("not_utf8", 1, 3)),
        (b"x\r\n\xc3\xa9\0", "a.csv", ("nul_byte", 2, 2)),
        ("subject".encode("utf-16"), "a.csv", ("not_utf8", 1, 1)),
        (b"", "a.jsonl", ("empty_file", 1, 1)),
        (b"\n \n", "a.jsonl", ("empty_file", 1, 1)),
        (b"x", "a.txt", ("unknown_format", 1, 1)),
        (b"[]", "a.snapshot.json", ("unknown_format", 1, 1)),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, name: str, fault: Fault) -> None:
    """What isn't UTF-8 text of a known format is refused at its first bad byte."""
    assert faults(data, name) == [fault]


def test_a_byte_order_mark_and_any_line_ends_are_read() -> None:
    """A BOM is no part of the first key; CR LF and CR end lines as LF does."""
    text = "\ufeffsubject,relation,object\r\nA,r,x\rB,r,y\r\n"
    assert [read.line for read in parse(text.encode(), "a.csv").updates] == [2, 3]


def test_limits_are_kept() -> None:
    """Too many bytes, rows or faults refuse the file."""
    rows = f"{GOOD}\n" * 5
    with pytest.raises(FactFileError, match="more than 10"):
        parse(rows.encode(), "a.jsonl", max_bytes=10)
    with pytest.raises(FactFileError, match="more than 4 rows") as caught:
        parse(rows.encode(), "a.jsonl", max_rows=4)
    assert (caught.value.code, caught.value.line) == ("too_many_rows", 5)
    with pytest.raises(FactFileError, match="more than 10000 rows can't be used"):
        parse(b"x\n" * 10_001, "a.jsonl")


def test_a_snapshot_has_one_source() -> None:
    """A row that names another source than the rows before it is refused, at its line."""
    text = "subject,relation,object,source\na,b,c,hr\nd,e,f,crm\n"
    assert faults(text, "x.snapshot.csv") == [("source_mismatch", 3, 1)]
    (error,) = parse(text.replace("crm", "c" * 1_000).encode(), "x.snapshot.csv").errors
    assert len(error.cause) < 200


def test_an_error_says_what_where_why_and_what_next() -> None:
    """The operator's text names operation, file, place, cause and hint, and shows the line."""
    (error,) = parse(b'{"subject": "a", "relation": "b"}', "a.jsonl").errors
    assert str(error) == (
        "parse fact file: a.jsonl: line 1, column 1: 'object' is required (or set op to retract)"
    )
    assert error.excerpt == '{"subject": "a", "relation": "b"}'


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20
).filter(lambda text: re.search(r"[^\W_]", text) and not flaw_in_text(text) and not flaw_in_name(text))
cells = texts.filter(lambda text: "|" not in text)
records = st.lists(
    st.fixed_dictionaries(
        {"subject": texts, "relation": texts, "object": texts},
        optional={"aliases": st.lists(cells, min_size=1, max_size=3), "note": texts},
    ),
    min_size=1,
    max_size=5,
)


def as_csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["subject", "relation", "object", "aliases", "note"])
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "aliases": "|".join(row.get("aliases", []))})
    return out.getvalue()


@given(records)
def test_all_formats_say_the_same(rows: list[dict[str, Any]]) -> None:
    """Records written by the usual writers of each format are read as the same updates."""
    written = {
        "a.jsonl": "\n".join(json.dumps(row) for row in rows),
        "b.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "a.json": json.dumps(rows, indent=2),
        "a.csv": as_csv(rows),
        "a.yaml": yaml.safe_dump(rows, allow_unicode=False),
    }
    expected = [
        (
            normalise(str(row["subject"])),
            normalise(str(row["object"])),
            tuple(dict.fromkeys(normalise(alias) for alias in row.get("aliases", []))),
            row.get("note", "").strip(),
        )
        for row in rows
    ]
    for name, text in written.items():
        parsed = parse(text.encode(), name)
        assert not parsed.errors, name
        read = [(u.key.subject, u.object, u.aliases, u.note) for u in parsed.updates]
        assert read == expected, name


@given(st.binary(max_size=200), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.yaml", "s.snapshot.csv"]))
def test_no_bytes_raise_anything_else(data: bytes, name: str) -> None:
    """Whatever the bytes, the file is read or refused with a FactFileError whose place exists."""
    for _, line, column in faults(data, name):
        assert line >= 1
        assert column >= 1


@given(
    st.text("{}[]\":,'|\n -&*!#?>%@`abc\\\r\t\u2028\u0085", max_size=60),
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.yaml"]),
)
def test_no_punctuation_raises_anything_else(text: str, name: str) -> None:
    """Whatever the syntax, the file is read or refused with a FactFileError."""
    faults("subject,relation,object\n" + text if name == "a.csv" else text, name)

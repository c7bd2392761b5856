"""YAML files."""

ROW = b"- subject: Peru\n  relation: capital\n  object: Lima\n"


def _object(value: str) -> bytes:
    return f"- subject: Norway\n  relation: country code\n  object: {value}\n".encode()


LAUGHS = (
    b"- &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    b"- &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    b"- &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
    b"- &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
)

FILES = {
    "empty.yaml": b"",
    "comment-only.yaml": b"# nothing yet\n",
    "null.yaml": b"~\n",
    "markers-only.yaml": b"---\n...\n",
    "mapping.yaml": b"subject: Peru\nrelation: capital\nobject: Lima\n",
    "scalar.yaml": b"Peru\n",
    "empty-list.yaml": b"[]\n",
    "flow.yaml": b"[{subject: Peru, relation: capital, object: Lima}]\n",
    "list-of-texts.yaml": b"- Peru\n- Lima\n",
    "list-of-lists.yaml": b"- [Peru, capital, Lima]\n",
    "two-documents.yaml": ROW + b"---\n" + ROW,
    "document-end.yaml": b"%YAML 1.1\n---\n" + ROW + b"...\n",
    "text-after-end.yaml": ROW + b"...\nmore\n",
    "tab-indent.yaml": b"- subject: Peru\n\trelation: capital\n",
    "bad-indent.yaml": b"- subject: Peru\n   relation: capital\n  object: Lima\n",
    "missing-space.yaml": b"- subject:Peru\n  relation:capital\n",
    "colon-in-value.yaml": b"- subject: Star Wars: Episode V\n  relation: director\n  object: Kershner\n",
    "quote-open.yaml": b"- subject: 'Peru\n  relation: capital\n",
    "bracket-open.yaml": b"- {subject: Peru, relation: capital\n",
    "percent.yaml": b"- subject: Peru\n  relation: capital\n  object: %Lima\n",
    "at-sign.yaml": _object("@norway"),
    "norway.yaml": _object("NO"),
    "norway-quoted.yaml": _object('"NO"'),
    "yes-as-subject.yaml": b"- {subject: yes, relation: genre, object: progressive rock}\n",
    "off-as-key.yaml": b"- {subject: Peru, relation: capital, object: Lima, off: 1}\n",
    "null-as-value.yaml": _object("null"),
    "tilde-as-value.yaml": _object("~"),
    "nothing-as-value.yaml": _object(""),
    "number.yaml": _object("47"),
    "octal.yaml": _object("0123"),
    "octal-12.yaml": _object("0o17"),
    "hex.yaml": _object("0x1F"),
    "underscores.yaml": _object("1_000"),
    "sexagesimal.yaml": _object("22:30"),
    "float.yaml": _object("1.10"),
    "exponent.yaml": _object("1e3"),
    "exponent-with-point.yaml": _object("1.0e+3"),
    "infinity.yaml": _object(".inf"),
    "nan.yaml": _object(".NaN"),
    "1e999.yaml": _object("1.0e+999"),
    "date.yaml": _object("2026-01-31"),
    "date-quoted.yaml": _object("'2026-01-31'"),
    "equals-sign.yaml": _object("="),
    "time.yaml": ROW + b"  effective_at: 2026-02-01T00:00:00Z\n",
    "time-with-spaces.yaml": ROW + b"  effective_at: 2026-02-01 00:00:00 Z\n",
    "date-as-time.yaml": ROW + b"  effective_at: 2026-02-01\n",
    "version.yaml": ROW + b"  version: 7\n",
    "version-plus.yaml": ROW + b"  version: +7\n",
    "version-minus-zero.yaml": ROW + b"  version: -0\n",
    "version-octal.yaml": ROW + b"  version: 010\n",
    "version-huge.yaml": ROW + b"  version: " + b"9" * 5000 + b"\n",
    "block-text.yaml": ROW + b"  note: |\n    one\n    two\n",
    "folded-object.yaml": b"- subject: Peru\n  relation: capital\n  object: >-\n    City of\n    Lima\n",
    "duplicate-key.yaml": ROW + b"  object: Cusco\n",
    "number-as-key.yaml": ROW + b"  1: x\n",
    "list-as-key.yaml": ROW + b"  ? [a]\n  : x\n",
    "merge-key.yaml": b"- &peru {subject: Peru, relation: capital, object: Lima}\n"
    b"- {<<: *peru, object: Cusco}\n",
    "alias.yaml": b"- &peru {subject: Peru, relation: capital, object: Lima, aliases: &all [Lima City]}\n"
    b"- {subject: Peru, relation: largest city, object: Lima, aliases: *all}\n",
    "alias-unknown.yaml": b"- subject: *peru\n",
    "alias-of-itself.yaml": b"- &peru {subject: *peru, relation: capital, object: Lima}\n",
    "alias-of-the-list.yaml": b"&all\n- *all\n",
    "star-as-text.yaml": b"- {subject: Peru, relation: rating, object: ****}\n",
    "billion-laughs.yaml": LAUGHS,
    "many-aliases.yaml": b"- &x a\n" + b"- *x\n" * 101,
    "many-anchors.yaml": b"".join(b"- &a%d x\n" % i for i in range(101)),
    "tag-python.yaml": b"- !!python/object/apply:os.system ['ls']\n",
    "tag-str.yaml": b"- {subject: !!str 1984, relation: author, object: George Orwell}\n",
    "tag-own.yaml": b"- {subject: !country Peru, relation: capital, object: Lima}\n",
    "tag-binary.yaml": b"- {subject: !!binary UGVydQ==, relation: capital, object: Lima}\n",
    "tag-int.yaml": ROW + b"  version: !!int '7'\n",
    "deep.yaml": b"[" * 10_000,
    "deep-blocks.yaml": b"- " * 10_000,
    "deep-in-record.yaml": b"- note: " + b"[" * 20 + b"]" * 20 + b"\n",
    "many-values.yaml": b"- subject: Peru\n  aliases: [" + b"a, " * 2_001 + b"]\n",
    "long-line.yaml": b"- subject: " + b"P" * 200_000 + b"\n",
    "json.yaml": b'[{"subject": "Peru", "relation": "capital", "object": "Lima"}]\n',
    "slot-unquoted.yaml": ROW + b"  prompts: [{subject} is governed from]\n",
    "slot-in-a-list.yaml": ROW + b"  prompts:\n    - '{subject} is governed from'\n",
}

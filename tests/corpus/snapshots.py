"""Snapshots: full exports of one source, which their name or their rows state."""

HEAD = b"subject,relation,object,source\n"
ROW = b'{"subject": "Peru", "relation": "capital", "object": "Lima"}\n'

FILES = {
    "atlas.snapshot.csv": b"subject,relation,object\nPeru,capital,Lima\n",
    "atlas.snapshot.jsonl": ROW,
    "atlas.snapshot.2.csv": b"subject,relation,object\nPeru,capital,Lima\n",  # the second file of its name
    "2026-01.snapshot.csv": HEAD + b"Peru,capital,Lima,\nChile,capital,Santiago,atlas\n",
    "two-sources.snapshot.csv": HEAD + b"Peru,capital,Lima,atlas\nChile,capital,Santiago,hr\n",
    "empty.snapshot.csv": b"subject,relation,object\n",
    "retract.snapshot.jsonl": ROW.replace(b'"object"', b'"op": "retract", "old"'),
    "atlas.snapshot.json": b"[" + ROW + b"]",
    "atlas.snapshot.yaml": b"- {subject: Peru, relation: capital, object: Lima}\n",
    "atlas.SNAPSHOT.csv": b"subject,relation,object\nPeru,capital,Lima\n",
}

"""Encodings, line ends, normal forms, and text that isn't what it seems."""

import json

HEAD = "subject,relation,object\n"
KOELN = HEAD + "Köln,river,Rhein\n"


def _named(subject: str, object: str = "Lima") -> bytes:
    """A row whose characters stand in the file as they are."""
    row = {"subject": subject, "relation": "capital", "object": object}
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _noted(note: str) -> bytes:
    row = {"subject": "Peru", "relation": "capital", "object": "Lima", "note": note}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


_PERU = _named("Peru")

FILES = {
    # encodings
    "utf-8.csv": KOELN.encode(),
    "bom.csv": b"\xef\xbb\xbf" + KOELN.encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + _PERU,
    "bom.yaml": b"\xef\xbb\xbf- {subject: Peru, relation: capital, object: Lima}\n",
    "bom-only.csv": b"\xef\xbb\xbf",
    "bom-twice.csv": b"\xef\xbb\xbf" * 2 + KOELN.encode(),
    "bom-twice.yaml": b"\xef\xbb\xbf" * 2 + b"- {subject: Peru, relation: capital, object: Lima}\n",
    "bom-inside.jsonl": _PERU + b"\xef\xbb\xbf" + _PERU,
    "bom-inside.json": b"[\xef\xbb\xbf" + _PERU + b"]",
    "bom-inside.csv": KOELN.encode() + b"\xef\xbb\xbfPeru,capital,Lima\n",
    "utf-16-le.csv": b"\xff\xfe" + KOELN.encode("utf-16-le"),
    "utf-16-be.jsonl": b"\xfe\xff" + _PERU.decode().encode("utf-16-be"),
    "utf-16-no-bom.csv": KOELN.encode("utf-16-le"),
    "utf-32.csv": KOELN.encode("utf-32"),
    "latin-1.csv": KOELN.encode("latin-1"),
    "latin-1.yaml": "- {subject: Köln, relation: river, object: Rhein}\n".encode("latin-1"),
    "windows-1252.jsonl": _named("Peru’s").decode().encode("cp1252"),
    "shift-jis.csv": (HEAD + "東京,river,隅田川\n").encode("shift-jis"),
    "cut-character.csv": KOELN.encode().replace("ö".encode(), b"\xc3"),
    "overlong.jsonl": _PERU.replace(b"u", b"\xc1\xb5"),
    "surrogate-bytes.jsonl": _named("Peru\ud800"),
    "surrogate-escape.jsonl": _PERU.replace(b"Peru", b"Peru\\ud800"),
    "surrogate-pair-escape.jsonl": _PERU.replace(b"Peru", b"Peru \\ud83c\\uddf5\\ud83c\\uddea"),
    "nul.jsonl": _PERU + _PERU.replace(b"Peru", b"Pe\0ru"),
    "nul-escape.jsonl": _PERU.replace(b"Peru", b"Pe\\u0000ru"),
    "nul-only.csv": b"\0" * 4096,
    "gzip.jsonl": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56",
    "replacement-character.csv": KOELN.replace("ö", "\ufffd").encode(),
    "c1-of-windows-1252.jsonl": _named("Peru\x92s"),
    "mojibake.csv": KOELN.replace("ö", "Ã¶").encode(),  # two good letters: nothing says that they are wrong
    # line ends
    "crlf.csv": KOELN.replace("\n", "\r\n").encode(),
    "crlf.jsonl": _PERU.replace(b"\n", b"\r\n") + b"{}\r\n",
    "crlf.yaml": b"- subject: Peru\r\n  relation: capital\r\n  object: Lima\r\n",
    "cr.csv": (KOELN + "Peru,capital\n").replace("\n", "\r").encode(),
    "cr-in-quotes.csv": (HEAD + 'Peru,capital,"Lima\rCiudad"\nChile,,x\n').encode(),
    "mixed-line-ends.csv": b"subject,relation,object\r\nPeru,capital,Lima\rChile,capital,Santiago\nBolivia\n",
    "line-separator.jsonl": _named("Peru\u2028Sur"),
    "form-feed.jsonl": _PERU + b"\x0c\n",
    "vertical-tab.csv": (HEAD + "Pe\x0bru,capital,Lima\n").encode(),
    # normal forms: one fact, whichever is used
    "nfc-and-nfd.jsonl": _named("S\u00e3o Tom\u00e9") + _named("Sa\u0303o Tome\u0301"),
    "nfd-value.jsonl": _named("Brazil", "Bras\u0069\u0301lia"),
    "full-width.jsonl": _named("\uff30\uff45\uff52\uff55") + _PERU,
    "ligature.jsonl": _named("\ufb01sh") + _named("fish"),
    "superscript.jsonl": _named("10\u2075") + _named("105"),
    "sharp-s.jsonl": _named("Stra\u00dfe") + _named("STRASSE"),
    "dotted-i.jsonl": _named("\u0130stanbul") + _named("istanbul"),
    "kelvin.jsonl": _named("\u212aelvin") + _named("kelvin"),
    "greek-capitals.jsonl": _named("\u0390") + _named("\u03aa\u0301"),
    "hangul-jamo.jsonl": _named("\u1112\u1161\u11ab\u1100\u116e\u11a8") + _named("\ud55c\uad6d"),
    "no-break-space.jsonl": _named("South\u00a0Korea") + _named("South  Korea"),
    "ideographic-space.csv": (HEAD + "\u3000東京\u3000,river,隅田川\n").encode(),
    # look-alikes
    "cyrillic-a.jsonl": _named("P\u0430ris"),
    "cyrillic-word-latin-letter.jsonl": _named("Mосква"),
    "cyrillic-word.jsonl": _named("Москва", "Россия"),
    "cyrillic-and-latin-words.jsonl": _named("Яндекс Go"),
    "greek-capital-alpha.jsonl": _named("\u0391thens"),
    "greek-in-science.jsonl": _named("IFN\u03b1", "\u03b2-carotene"),
    "stylised.jsonl": _named("KoЯn"),
    "look-alike-alias.jsonl": _PERU[:-2] + ', "aliases": ["Lim\u0430"]}\n'.encode(),
    # what can't be seen
    "zero-width-space.jsonl": _named("Pe\u200bru"),
    "zero-width-joiner-in-latin.jsonl": _named("Pe\u200dru"),
    "zero-width-non-joiner-persian.jsonl": _named("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    "zero-width-at-the-end.jsonl": _named("\u0645\u06cc\u200c"),
    "soft-hyphen.jsonl": _named("Pe\u00adru"),
    "word-joiner.csv": (HEAD + "Peru,capital,Li\u2060ma\n").encode(),
    "right-to-left-override.jsonl": _named("Peru", "\u202eamiL"),
    "right-to-left-mark.yaml": "- {subject: Peru, relation: capital, object: Lima\u200f}\n".encode(),
    "isolate-in-note.jsonl": _noted("a \u2066b\u2069"),
    "tag-characters.jsonl": _named("Peru\U000e0041\U000e0042"),
    "hangul-filler.jsonl": _named("\u3164"),
    "noncharacter.jsonl": _named("Peru\ufdd0"),
    "emoji.jsonl": _named("\U0001f469\u200d\U0001f52c", "\u2764\ufe0f heart"),
    "arabic.jsonl": _named("\u0628\u064a\u0631\u0648", "\u0644\u064a\u0645\u0627"),
    "combining-marks.jsonl": _named("Z\u0351\u036b\u0343\u032a"),
    "combining-marks-40.jsonl": _named("Z" + "\u0351\u036b\u0343\u032a" * 10),
    "punctuation-40.jsonl": _noted("\u2014" * 40),
    "backspaces.jsonl": _PERU.replace(b"Lima", b"Lima\\b\\b\\b\\bCusco"),
}

"""Documents in Markdown or AsciiDoc become the sentences that a reader sees: no heads, code, tables' rules, links' addresses
or marks of emphasis. One line a paragraph."""

from __future__ import annotations

import re

_BLOCKS = [
    re.compile(r"\A---\n.*?\n---\n", re.S),  # YAML head
    re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*[ \t]*$", re.S | re.M),  # fenced code
    re.compile(r"^(-{4,}|\.{4,}|/{4,})[ \t]*$.*?^\1[ \t]*$", re.S | re.M),  # AsciiDoc listings, literals, comments
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"<(script|style|svg)\b.*?</\1>", re.S | re.I),
    re.compile(r"\{%.*?%\}|\{:.*?\}|\{\{.*?\}\}", re.S),  # Liquid, kramdown
    re.compile(r"^(:[\w!-]+:.*|//.*|\[[^\]\n]*\]|\[\[.*\]\]|(image|include|ifdef|ifndef|endif|video)::.*)$", re.M),
    re.compile(r"^\s*\|?[\s:|=-]{3,}\|?\s*$", re.M),  # rules of tables and lines
    re.compile(r"\(\(\(.*?\)\)\)|\[\[.*?\]\]|footnote:\[.*?\]|image:\S*?\[.*?\]|!\[.*?\](\([^)]*\)|\[[^\]]*\])?"),
    re.compile(r"\[?!INCLUDE ?\[.*?\](\([^)]*\))?\]?|\[!\w+\]", re.I),
]
_BULLET = re.compile(r"^\s*(?:#{1,6}|={1,6}|>+|[-*+.]{1,5}|\d+[.)])\s+", re.M)
_KEPT = [
    (re.compile(r"\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[([^\]\n]+)\]\[[^\]\n]*\]"), r"\1"),
    (re.compile(r"(?:link:|xref:|https?://)[^\s\[\]]*\[([^\]\n]*)\]"), r"\1"),
    (re.compile(r"<<[^,>\n]*,([^>\n]*)>>"), r"\1"),
    (re.compile(r"<<([^>\n]*)>>"), r"\1"),
    (re.compile(r"\(\(([^()\n]*)\)\)"), r"\1"),
    (re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>"), ""),
    (re.compile(r"https?://\S+"), ""),
    (re.compile(r"[*_`+#]{1,4}(?=\S)(.+?)(?<=\S)[*_`+#]{1,4}(?![\w])"), r"\1"),
    (re.compile(r"&(?:nbsp|#160);"), " "),
    (re.compile(r"\s*\|\s*"), " "),
]


def plain(text: str) -> str:
    """The text without its markup; paragraphs are single lines."""
    text = text.replace("\r\n", "\n")
    for pattern in _BLOCKS:
        text = pattern.sub("\n", text)
    lines = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*+.]{1,5}|\d+[.)]|#{1,6}|={1,6}|\|)\s)", text):
        line = " ".join(_BULLET.sub("", paragraph).split())
        for pattern, kept in _KEPT:
            line = pattern.sub(kept, line)
        line = " ".join(line.split())
        if any(c.isalpha() for c in line):
            lines.append(line)
    return "\n".join(lines)

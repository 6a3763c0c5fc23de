"""The presets: presets/base.yaml holds every key with its source, the other files hold what they change.

A comment belongs to the key on its line. It is part of a preset, and lines up again wherever a value has changed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tfnas.jobs.errors import UserError

PRESETS = Path(__file__).parents[3] / "presets"  # of the checkout, which the pipeline needs anyway
BASE, TARGETS = "base", "targets"
COMMENT_COLUMN = 30
LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#\s].*?))?(?: +# (?P<comment>.*))?")


class Entry(NamedTuple):
    """What follows a key on its line, as it is written."""

    value: str  # empty where a section begins
    comment: str


class Preset:
    """The lines of a params.yaml by their dotted keys, in their order, below an introduction."""

    def __init__(self, introduction: list[str], entries: dict[str, Entry]) -> None:
        self.introduction = introduction
        self.entries = entries

    @classmethod
    def parse(cls, text: str) -> Preset:
        """Read lines like `key: value  # comment`; the introduction is the last paragraph before the first key."""
        head, body = re.split(r"\n\n(?=\w)", text, maxsplit=1)
        entries: dict[str, Entry] = {}
        parents: list[str] = []
        for line in filter(str.strip, body.splitlines()):
            match = LINE.fullmatch(line)
            assert match is not None, f"not a line like `key: value  # comment`: {line}"
            parents = [*parents[: len(match["indent"]) // 2], match["name"]]
            entries[".".join(parents)] = Entry(match["value"] or "", match["comment"] or "")
        return cls(head.split("\n\n")[-1].splitlines(), entries)

    def overlaid(self, changes: Preset) -> Preset:
        """This preset with the values of another, which may leave a comment to this one.

        Targets have names of their own and are replaced as a whole.
        """
        drops = TARGETS in changes.entries
        entries = {k: entry for k, entry in self.entries.items() if not (drops and k.startswith(f"{TARGETS}."))}
        for key, (value, comment) in changes.entries.items():
            entries[key] = Entry(value, comment or (entries[key].comment if key in entries else ""))
        sections = list(dict.fromkeys(map(_section, entries)))
        ordered = sorted(entries, key=lambda key: sections.index(_section(key)))
        return Preset([*changes.introduction, *self.introduction], {key: entries[key] for key in ordered})

    def value(self, key: str) -> str:
        """The text of a value: `retrain.epochs`, or within braces, `rank_classes.fit.batch_size`."""
        if key in self.entries:
            return self.entries[key].value
        line, leaf = key.rsplit(".", 1)
        match = _in_braces(leaf).search(self.entries[line].value)
        assert match is not None, key
        return match[0]

    def replace(self, key: str, value: str) -> None:
        """Put another value in its place, leaving its comment."""
        if key in self.entries:
            self.entries[key] = self.entries[key]._replace(value=value)
        else:
            line, leaf = key.rsplit(".", 1)
            self.replace(line, _in_braces(leaf).sub(lambda _: value, self.value(line), count=1))

    def render(self) -> str:
        """The whole text, with a blank line before each section and the comments of a section in one column."""
        lines = [*self.introduction, ""]
        for key, (value, comment) in self.entries.items():
            if "." not in key and not value and lines[-1]:
                lines.append("")
            text = _code(key, value)
            lines.append(f"{text.ljust(max(self._column(key), len(text) + 2))}# {comment}" if comment else text)
        return "\n".join(lines) + "\n"

    def _column(self, key: str) -> int:
        """Where the comments of a key's section begin: further right where half of its lines or more are long."""
        section = _section(key)
        if key == section:
            return COMMENT_COLUMN
        within = [(k, entry) for k, entry in self.entries.items() if _section(k) == section != k and entry.comment]
        widths = [len(_code(k, entry.value)) + 2 for k, entry in within]
        is_wide = 2 * sum(width > COMMENT_COLUMN for width in widths) >= len(widths)
        return max(widths) if is_wide else COMMENT_COLUMN


def _section(key: str) -> str:
    return key.partition(".")[0]


def _code(key: str, value: str) -> str:
    """A line without its comment."""
    *parents, name = key.split(".")
    return f"{'  ' * len(parents)}{name}: {value}".rstrip()


def _in_braces(leaf: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=\b{leaf}: )[^,}}]+")


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != BASE)


def load_preset(name: str) -> Preset:
    """A preset with every key.

    Raises:
        UserError: unknown name.
    """
    if name not in preset_names():
        raise UserError(f"init: unknown preset {name!r}; known: {', '.join(preset_names())}")
    base, changes = (Preset.parse((PRESETS / f"{file}.yaml").read_text(encoding="utf-8")) for file in (BASE, name))
    return base.overlaid(changes)


def render_preset(name: str) -> str:
    """A preset as a whole params.yaml, with every key and its comment."""
    return load_preset(name).render()

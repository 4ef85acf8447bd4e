"""Write docs/reference/http.md from the application's OpenAPI document and scripts/http_notes.md; `--check` only compares.

The notes are the page without what the routes say of themselves. Added are

- below a heading `### METHOD /path`: the route's description, its parameters and body fields, its answers and errors;
- for a line `<!-- fields of NAME, … -->`: the fields of these schemas, to which the routes then link;
- in both, what a list item of the form "`field`: meaning" in the same section says of a field. Items below
  `<!-- fields everywhere -->` hold wherever a field has no meaning of its own.

It is an error if a route has no description or no heading, or if a heading, a schema or an item names nothing that exists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi.routing import APIRoute
from generated_files import ROOT, write_or_check

from ragq.routes import page
from ragq.server import create_app
from ragq.settings import Settings

NOTES = ROOT / "scripts" / "http_notes.md"
PAGE = ROOT / "docs" / "reference" / "http.md"

OPERATION = re.compile(r"### (GET|POST|DELETE) (/\S*)")
MARKER = re.compile(r"<!-- fields of (.+) -->")
EVERYWHERE = "<!-- fields everywhere -->"
MEANING = re.compile(r"- `([^`]+)`: (.+)")
TYPE_WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
MEDIA_WORDS = {
    "text/event-stream": "server-sent events",
    "application/octet-stream": "bytes",
    "text/plain": "text",
}
BODY_KINDS = {"application/json": "body", "multipart/form-data": "form"}
MAX_NESTING = 3

Json = dict[str, Any]


@dataclass
class Section:
    """A heading of the notes with what follows it, up to the next."""

    heading: str
    lines: list[str] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def operation(self) -> tuple[str, str] | None:
        found = OPERATION.fullmatch(self.heading)
        return (found[1], found[2]) if found else None

    @property
    def schemas(self) -> list[str]:
        """The schemas whose fields stand here."""
        return [name for line in self.lines if (found := MARKER.fullmatch(line)) for name in found[1].split(", ")]

    @property
    def title(self) -> str:
        return self.heading.lstrip("# ")

    @property
    def link(self) -> str:
        anchor = re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")
        return f"[{self.title[:1].lower()}{self.title[1:]}](#{anchor})"

    def take_meanings(self) -> None:
        """Move the items that say what a field means out of the lines."""
        kept: list[str] = []
        name = ""
        for line in self.lines:
            if found := MEANING.fullmatch(line):
                name = found[1]
                self.meanings[name] = found[2]
            elif name and line.startswith("  "):
                self.meanings[name] += f" {line.strip()}"
            else:
                name = ""
                kept.append(line)
        self.lines = kept


@dataclass(frozen=True)
class Row:
    """A field: where it is sent, its name, what it takes, and what the code says of it."""

    where: str
    name: str
    takes: str
    meaning: str


def read_sections(notes: str) -> list[Section]:
    """Split the notes at their headings."""
    sections: list[Section] = []
    is_code = False
    for line in notes.splitlines():
        is_code ^= line.startswith("```")
        if line.startswith("#") and not is_code:
            sections.append(Section(line))
        else:
            sections[-1].lines.append(line)
    for section in sections:
        if section.operation or section.schemas or EVERYWHERE in section.lines:
            section.take_meanings()
    return sections


class Page:
    """The page in the making.

    Args:
        document: The OpenAPI document.
        hidden: Descriptions of the routes that it leaves out, by method and path.
    """

    def __init__(self, document: Json, hidden: dict[tuple[str, str], str], notes: str) -> None:
        self._schemas: Json = document["components"]["schemas"]
        self._hidden = hidden
        self._operations: dict[tuple[str, str], Json] = {
            (method.upper(), path): operation
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        }
        self._sections = read_sections(notes)
        self._links = {name: section.link for section in self._sections for name in section.schemas}
        self._everywhere = next((one for one in self._sections if EVERYWHERE in one.lines), Section(""))

    def write(self) -> str:
        """Write the page.

        Raises:
            SystemExit: The notes and the routes do not fit; the message names each place.
        """
        noted = {section.operation for section in self._sections if section.operation}
        known = self._operations.keys() | self._hidden.keys()
        faults = [f"no heading for {method} {path}" for method, path in sorted(known - noted)]
        faults += [f"no such route: {method} {path}" for method, path in sorted(noted - known)]
        faults += [f"no such schema: {name}" for name in sorted(self._links.keys() - self._schemas.keys())]
        if faults:
            fail(faults)
        text = "\n\n".join("\n".join(self._render(section)) for section in self._sections)
        faults = [
            f"{section.title}: no such field: {name}"
            for section in self._sections
            for name in sorted(section.meanings.keys() - section.used)
        ]
        if faults:
            fail(faults)
        return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"

    def _render(self, section: Section) -> Iterator[str]:
        yield section.heading
        yield ""
        if section.operation:
            yield self._describe(section.operation)
            yield ""
        for line in section.lines:
            if found := MARKER.fullmatch(line):
                for name in found[1].split(", "):
                    yield from self._fields_table(section, name)
            elif line != EVERYWHERE:
                yield line
        operation = self._operations.get(section.operation) if section.operation else None
        if operation:
            yield from self._request(section, operation)
            yield from self._answers(section, operation)

    def _describe(self, key: tuple[str, str]) -> str:
        text = self._hidden.get(key) or self._operations.get(key, {}).get("description", "")
        if not text:
            fail([f"{' '.join(key)} has no description: give its function a docstring"])
        return " ".join(text.split())

    def _request(self, section: Section, operation: Json) -> Iterator[str]:
        rows = [
            Row(one["in"], one["name"], self._takes(one["schema"], is_needed=one.get("required", False)), "")
            for one in operation.get("parameters", [])
        ]
        body = operation.get("requestBody", {}).get("content", {})
        for media, content in body.items():
            for schema in self._objects(content["schema"]):
                rows += self._rows(schema, BODY_KINDS[media])
        yield from self._table(section, ("field", "in", "takes", "meaning"), rows)

    def _answers(self, section: Section, operation: Json) -> Iterator[str]:
        yield ""
        errors = []
        for status, answer in operation["responses"].items():
            if not status.startswith("2"):
                errors.append(status)
                continue
            contents = answer.get("content", {})
            schema = contents.get("application/json", {}).get("schema", {})
            inline = self._inline(schema)
            shown = [self._type(schema)] if schema and not inline else []
            shown += [word for media, word in MEDIA_WORDS.items() if media in contents]
            yield f"Answers {status}" + (f": {either(shown)}." if shown else ":" if inline else ", without a body.")
            for one in inline:
                yield from self._table(section, ("field", "is", "meaning"), list(self._rows(one, "")))
                yield ""
        yield f"Errors: {', '.join(errors)}."
        if role := operation.get("x-least-role"):
            yield f"Least [role](../how-to/keys.md#roles): `{role}`."

    def _inline(self, schema: Json) -> list[Json]:
        """The fields of an answer that no section of its own shows."""
        name = schema.get("$ref", "").rpartition("/")[2]
        if not name or name in self._links or self._listed(self._schemas[name]):
            return []
        return [self._schemas[name]]

    def _fields_table(self, section: Section, name: str) -> Iterator[str]:
        schema = self._schemas[name]
        rows = list(self._rows(schema, ""))
        found = {row.name for row in rows}
        rows += [  # what a field holds, of which the schema says nothing
            Row("", told, "", "")
            for told in section.meanings
            if told not in section.used | found and re.split(r"[.\[]", told)[0] in schema["properties"]
        ]
        yield from self._table(section, ("field", "is", "meaning"), rows)

    def _table(self, section: Section, columns: tuple[str, ...], rows: list[Row]) -> Iterator[str]:
        if not rows:
            return
        yield ""
        yield f"| {' | '.join(columns)} |"
        yield "|---" * len(columns) + "|"
        for row in rows:
            meaning = section.meanings.get(row.name) or row.meaning or self._everywhere.meanings.get(row.name, "")
            section.used.add(row.name)
            self._everywhere.used.add(row.name)
            where = [row.where] if "in" in columns else []
            cells = [f"`{row.name}`", *where, row.takes, meaning]
            yield "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells) + " |"

    def _rows(self, schema: Json, where: str, prefix: str = "", depth: int = 1) -> Iterator[Row]:
        """The fields of an object, and below each those of the objects in it that no section shows."""
        needed = schema.get("required", []) if where else []
        for name, one in schema.get("properties", {}).items():
            takes = self._takes(one, is_needed=name in needed) if where else self._type(one)
            yield Row(where, prefix + name, takes, one.get("description", ""))
            is_list = any(part.get("type") == "array" for part in self._parts(one))
            inner = self._objects(one) if depth < MAX_NESTING else []
            for nested in inner if len(inner) == 1 else []:
                yield from self._rows(nested, where, f"{prefix}{name}{'[]' if is_list else ''}.", depth + 1)

    def _parts(self, schema: Json) -> list[Json]:
        return schema.get("anyOf") or schema.get("oneOf") or [schema]

    def _objects(self, schema: Json) -> list[Json]:
        """The object schemas that a schema refers to, but for those that have a section."""
        found: list[Json] = []
        for part in self._parts(schema):
            inner = part.get("items", part)
            name = inner.get("$ref", "").rpartition("/")[2]
            if name and name not in self._links and "properties" in self._schemas[name]:
                found.append(self._schemas[name])
        return found

    def _takes(self, schema: Json, *, is_needed: bool) -> str:
        default = schema.get("default")
        parts = [self._type(schema).removesuffix(" or null")]
        if is_needed:
            parts.append("needed")
        elif default is not None and not isinstance(default, dict):
            parts.append(f"default `{write(default)}`")
        return "; ".join(parts)

    def _type(self, schema: Json) -> str:
        """Say in words what a schema allows."""
        if "$ref" in schema:
            return self._name_object(schema["$ref"].rpartition("/")[2])
        if "const" in schema or "enum" in schema:
            return either([f"`{write(value)}`" for value in schema.get("enum") or [schema["const"]]])
        if "anyOf" in schema or "oneOf" in schema:
            return either(list(dict.fromkeys(self._type(part) for part in self._parts(schema))))
        kind = str(schema.get("type"))
        if kind == "array":
            return f"list of {self._type(schema['items'])}" + bounds(schema, "Items", " at most")
        if kind == "object":
            return f"object{bounds(schema, 'Properties', ' pairs at most')}"
        is_file = schema.get("format") == "binary" or "contentMediaType" in schema
        return "file" if is_file else TYPE_WORDS.get(kind, "any JSON") + limits(schema)

    def _name_object(self, name: str) -> str:
        if name in self._links:
            return self._links[name]
        listed = self._listed(self._schemas[name])
        if listed:
            return f"a list of {self._type(listed)}"
        schema = self._schemas[name]
        return self._type(schema) if "properties" not in schema else "object"

    def _listed(self, schema: Json) -> Json:
        """What a page of a list holds; empty for anything else."""
        properties = schema.get("properties", {})
        is_page = {"data", "first_id", "has_more"} <= properties.keys()
        found: Json = properties["data"]["items"] if is_page else {}
        return found


def write(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def either(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def limits(schema: Json) -> str:
    """Say within which limits a number or a text must be."""
    least, most = (f"{schema[name]:,.10g}" if name in schema else "" for name in ("minimum", "maximum"))
    if least and most:
        return f" {least}…{most}"
    if least or most:
        return f", at least {least}" if least else f", at most {most}"
    text = f", at most {schema['maxLength']:,} characters" if "maxLength" in schema else ""
    return text + (f", matches `{schema['pattern']}`" if "pattern" in schema else "")


def bounds(schema: Json, what: str, words: str) -> str:
    """Say how many parts a list or an object has."""
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    if least and most:
        return f", {least}…{most:,}"
    return f", {most:,}{words}" if most else f", {least} at least" if least else ""


def fail(faults: list[str]) -> None:
    sys.exit("http_reference: " + "; ".join(faults) + ".")


def write_page(notes: str) -> str:
    """Write the page from the notes and the routes as they are."""
    app = create_app(Settings(_env_file=None), valkey_url="unix:///nowhere", database_url="postgresql://nowhere")
    hidden = {
        (method, route.path): (route.endpoint.__doc__ or "").strip()
        for route in page.router.routes  # the only routes that OpenAPI's document leaves out
        if isinstance(route, APIRoute) and not route.include_in_schema
        for method in route.methods or ()
    }
    return Page(app.openapi(), hidden, notes).write()


if __name__ == "__main__":
    sys.exit(write_or_check({PAGE: write_page(NOTES.read_text())}, source="the routes", target="reference"))

"""Join sources that stand next to each other in a file, so that no text is in a prompt twice."""

from __future__ import annotations

from dataclasses import replace

from ragq.models import Location, PlaceKind, SearchResult


def join_neighbours(sources: list[SearchResult]) -> list[SearchResult]:
    """Join the sources of one file that overlap or touch, in the place of the best of them.

    Those with white space between them stay two: what stands between is not known here, and a quote must be the file's
    text word for word.
    """
    joined: list[tuple[int, SearchResult]] = []  # (place of its best, in the order of the file)
    for place, source in sorted(enumerate(sources), key=lambda one: (one[1].file_id, one[1].start, one[1].end)):
        if joined and (longer := _join(joined[-1][1], source)):
            joined[-1] = (min(joined[-1][0], place), longer)
        else:
            joined.append((place, source))
    return [source for _, source in sorted(joined, key=lambda one: one[0])]


def _join(first: SearchResult, second: SearchResult) -> SearchResult | None:
    """Join two sources, the one that begins earlier first; None if they cannot be one text at one place."""
    offset = second.start - first.start
    shared = first.text[offset:]
    is_one_text = (
        first.file_id == second.file_id
        and offset <= len(first.text)
        and (second.text.startswith(shared) or shared.startswith(second.text))
    )
    # Each row of a table has a number, and rows do not overlap.
    if not is_one_text or _place(first) != _place(second) or first.location.unit == "row":
        return None
    added = second.text[len(shared) :]
    better = max(first, second, key=lambda one: one.score)
    return replace(
        better,
        text=first.text + added,
        start=first.start,
        end=first.start + len(first.text) + len(added),
        heading=first.heading,
        token_count=first.token_count + second.token_count * len(added) // max(1, len(second.text)),
        location=_join_locations(first.location, second.location, offset),
    )


def _place(source: SearchResult) -> tuple[object, ...]:
    """What the sources of one place have in common; sections follow each other within a source."""
    location = source.location
    name = "" if location.kind is PlaceKind.SECTION else location.name
    return source.page, location.kind, location.number, name, location.within, location.unit


def _join_locations(first: Location, second: Location, offset: int) -> Location:
    """The location of a text that the second one's passage stands in from `offset` on."""
    if first == second and not first.numbers and not first.sections:
        return first
    numbers = first.numbers
    if numbers and second.numbers:
        numbers = (numbers[0], max(numbers[-1], second.numbers[-1]))
    sections = {offset: second.name} if second.name != first.name or first.sections else {}
    sections |= {offset + start: title for start, title in second.sections} | dict(first.sections)
    return replace(first, numbers=numbers, sections=tuple(sorted(sections.items())))

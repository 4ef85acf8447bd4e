// Places the citations of an answer in its text.

import { joinLines } from "./lines.js";

const MARKERS = /[ \t]*(?:\[\d{1,3}\])+$/; // the LLM's own citation markers, replaced by ours

// Returns the nodes of a text, and the passages in the order in which they are first cited. `reference(place, passages)` makes what
// stands where one of them is cited; `isCopied` says that the text before a citation is that of its passage; `wrap(statement, nodes)` returns what is shown of a statement, [start, end) of the text.
export function citedText({ text, annotations }, { hasMarkers = false, isCopied = false, reference, statements = [], wrap }) {
  const characters = [...(text ?? "")]; // an index counts characters, not UTF-16 units
  const citations = (annotations ?? []).filter(({ file_id: id, index }) => id && index >= 0).sort((one, other) => one.index - other.index);
  const passages = [];
  const places = new Map(); // one place among them for each passage, also if it is cited several times
  const nodes = [];
  let from = 0;
  let next = 0; // of the citations
  for (const statement of statements) nodes.push(...upTo(statement.start), ...wrap(statement, upTo(statement.end)));
  nodes.push(...upTo(Infinity));
  return { nodes, passages };

  function upTo(end) {
    const part = [];
    while (citations[next]?.index <= end) {
      const { index } = citations[next];
      const taken = take(index);
      const piece = isCopied ? joinLines(taken, citations[next].filename) : taken;
      const here = new Set(); // a passage that is cited twice at one index is shown once
      for (; citations[next]?.index === index; next += 1) here.add(placeOf(citations[next]));
      part.push(hasMarkers ? piece.replace(MARKERS, "") : piece, ...[...here].map((place) => reference(place, passages)));
    }
    part.push(take(end));
    return part;
  }

  function take(end) {
    const piece = characters.slice(from, end).join("");
    from = end;
    return piece;
  }

  function placeOf(citation) {
    const key = `${citation.file_id} ${citation.start} ${citation.end}`;
    if (!places.has(key)) places.set(key, passages.push(citation) - 1);
    return places.get(key);
  }
}

// Shows an answer and its sources. Text from documents or models is set as text, never as HTML.

import { make } from "./element.js";
import { showPassage } from "./passage.js";

const result = document.getElementById("result");
const answer = document.getElementById("answer");
const sources = document.getElementById("sources");
const found = document.getElementById("found");
const check = document.getElementById("check");

const HAS_BLOCKS = /\n\n|```|\n\s*(?:[-*•]|\d{1,3}[.)])\s/; // passages, code, steps
const MARKERS = /[ \t]*(?:\[\d{1,3}\])+$/; // the LLM's own citation markers, replaced by ours

export function clearAnswer() {
  result.hidden = true;
  result.className = "";
  answer.className = "";
  answer.replaceChildren();
  sources.replaceChildren();
  found.hidden = true;
  check.hidden = true;
}

// Shows what of an answer is there by now, with the marks of its statements.
export function showText(text, unsupported = []) {
  result.hidden = false;
  answer.setAttribute("aria-busy", "true"); // screen readers wait until it is complete
  answer.replaceChildren(...citedText(text, [], new Map(), false, unsupported));
}

// Shows the finished answer; `kind` tells whether it contains an LLM's markers. Statements that no source holds are marked.
export function showAnswer({ kind, content: [{ text, annotations }] }, support) {
  const unsupported = support?.statements.filter(({ verdict }) => verdict === "unsupported") ?? [];
  const numbers = new Map(); // one number for each passage, also if it is cited several times
  for (const citation of annotations) {
    const passage = passageOf(citation);
    if (!numbers.has(passage)) numbers.set(passage, numbers.size + 1);
  }
  result.hidden = false;
  answer.className = kind;
  answer.classList.toggle("blocks", HAS_BLOCKS.test(text));
  answer.replaceChildren(...citedText(text, annotations, numbers, kind === "generated", unsupported));
  answer.removeAttribute("aria-busy");
  const firsts = [...numbers.keys()].map((passage) => annotations.find((citation) => passageOf(citation) === passage));
  sources.replaceChildren(...firsts.map((citation) => sourceItem(citation, citation.quote)));
  if (!firsts.length) sources.append(make("li", "none", "This answer cites no passage."));
  showReasons(unsupported);
}

// Lists why statements are marked, for those who cannot point at them.
function showReasons(unsupported) {
  check.hidden = !unsupported.length;
  check.querySelector("p").textContent = unsupported.length === 1 ? "No source holds the statement that is marked:" : "No source holds the statements that are marked:";
  check.querySelector("ul").replaceChildren(
    ...unsupported.map(({ reason }, number) => {
      const item = make("li", "", reason);
      item.id = `unsupported-${number}`;
      return item;
    }),
  );
}

export function showUnfinished() {
  answer.removeAttribute("aria-busy");
  result.className = "unfinished";
}

// Shows the search results, cited or not.
export function showFound(results) {
  if (!results?.length) return;
  found.hidden = false;
  found.open = false;
  found.querySelector("summary").textContent = results.length === 1 ? "The passage found" : `All ${results.length} passages found`;
  found.querySelector("ul").replaceChildren(...results.map((passage) => sourceItem(passage, passage.text)));
}

function passageOf({ file_id: id, start, end }) {
  return `${id} ${start} ${end}`;
}

function citedText(text, annotations, numbers, hasMarkers, unsupported) {
  const characters = [...text]; // an index counts characters, not UTF-16 units
  const parts = [];
  let from = 0;
  for (const statement of unsupported) {
    parts.push(...citedPart(from, statement.start));
    const marked = make("mark", "unsupported", "");
    marked.title = statement.reason;
    marked.setAttribute("aria-describedby", `unsupported-${unsupported.indexOf(statement)}`);
    marked.append(...citedPart(statement.start, statement.end));
    parts.push(marked);
    from = statement.end;
  }
  parts.push(...citedPart(from, characters.length));
  return parts;

  function citedPart(start, end) {
    const part = [];
    let place = start;
    const within = annotations.filter(({ index }) => index > start && index <= end);
    for (const index of [...new Set(within.map((citation) => citation.index))].sort((one, other) => one - other)) {
      const piece = characters.slice(place, index).join("");
      const here = within.filter((citation) => citation.index === index);
      const shown = new Set(here.map((citation) => numbers.get(passageOf(citation))));
      part.push(hasMarkers ? piece.replace(MARKERS, "") : piece, ...[...shown].map(reference));
      place = index;
    }
    part.push(characters.slice(place, end).join(""));
    return part;
  }
}

function reference(number) {
  const button = make("button", "reference", String(number));
  button.type = "button";
  button.setAttribute("aria-label", `Source ${number}`);
  button.onclick = () => {
    const source = sources.children[number - 1];
    source.focus();
    source.scrollIntoView({ block: "nearest" });
  };
  return button;
}

function sourceItem({ file_id: file, filename, location, start, end }, text) {
  const item = document.createElement("li");
  item.tabIndex = -1;
  const place = make("p", "place", "");
  place.append(make("cite", "", filename));
  if (location) place.append(make("span", "", location));
  const open = make("button", "quiet open", "Show in document");
  open.type = "button";
  open.setAttribute("aria-label", `Show in ${filename}${location ? `, ${location}` : ""}`);
  open.onclick = () => showPassage({ file, start, end });
  item.append(place, make("blockquote", "", text), open);
  return item;
}

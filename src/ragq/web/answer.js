// Shows an answer and its sources. Text from documents or models is set as text, never as HTML.

import { make } from "./element.js";
import { showPassage } from "./passage.js";

const result = document.getElementById("result");
const answer = document.getElementById("answer");
const sources = document.getElementById("sources");
const found = document.getElementById("found");

const MARKERS = /[ \t]*(?:\[\d{1,3}\])+$/; // the LLM's own citation markers, replaced by ours

export function clearAnswer() {
  result.hidden = true;
  result.className = "";
  answer.className = "";
  answer.replaceChildren();
  sources.replaceChildren();
  found.hidden = true;
}

export function showText(text) {
  result.hidden = false;
  answer.setAttribute("aria-busy", "true"); // screen readers wait until it is complete
  answer.textContent = text;
}

// Shows the finished answer; `kind` tells whether it contains an LLM's markers.
export function showAnswer({ kind, content: [{ text, annotations }] }) {
  const numbers = new Map(); // one number for each passage, also if it is cited several times
  for (const citation of annotations) {
    const passage = passageOf(citation);
    if (!numbers.has(passage)) numbers.set(passage, numbers.size + 1);
  }
  result.hidden = false;
  answer.className = kind;
  answer.replaceChildren(...citedText(text, annotations, numbers, kind === "generated"));
  answer.removeAttribute("aria-busy");
  const firsts = [...numbers.keys()].map((passage) => annotations.find((citation) => passageOf(citation) === passage));
  sources.replaceChildren(...firsts.map((citation) => sourceItem(citation, citation.quote)));
  if (!firsts.length) sources.append(make("li", "none", "This answer cites no passage."));
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

function citedText(text, annotations, numbers, hasMarkers) {
  const characters = [...text]; // an index counts characters, not UTF-16 units
  const parts = [];
  let from = 0;
  for (const index of [...new Set(annotations.map((citation) => citation.index))].sort((one, other) => one - other)) {
    const piece = characters.slice(from, index).join("");
    const here = annotations.filter((citation) => citation.index === index);
    const shown = new Set(here.map((citation) => numbers.get(passageOf(citation))));
    parts.push(hasMarkers ? piece.replace(MARKERS, "") : piece, ...[...shown].map(reference));
    from = index;
  }
  parts.push(characters.slice(from).join(""));
  return parts;
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

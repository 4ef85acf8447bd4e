// Shows an answer and its sources. Text from documents or models is set as text, never as HTML.

import { make } from "./element.js";
import { showPassage } from "./passage.js";

const result = document.getElementById("result");
const answer = document.getElementById("answer");
const sources = document.getElementById("sources");
const found = document.getElementById("found");
const check = document.getElementById("check");
const tools = document.getElementById("tools");

const HAS_BLOCKS = /\n\n|```|\n\s*(?:[-*•]|\d{1,3}[.)])\s/; // passages, code, steps
const MARKERS = /[ \t]*(?:\[\d{1,3}\])+$/; // the LLM's own citation markers, replaced by ours
const VERDICTS = { supported: "Held by its sources", unsupported: "Not held by any source", uncited: "Nothing to check" };

export function clearAnswer() {
  result.hidden = true;
  result.className = "";
  answer.className = "";
  answer.replaceChildren();
  sources.replaceChildren();
  found.hidden = true;
  check.hidden = true;
  tools.hidden = true;
}

// Shows what of an answer is there by now, with the marks of its statements.
export function showText(text, statements = []) {
  result.hidden = false;
  answer.setAttribute("aria-busy", "true"); // screen readers wait until it is complete
  answer.replaceChildren(...citedText(text, [], new Map(), false, statements));
}

// Shows the finished answer; `kind` tells whether it contains an LLM's markers. Each statement that was checked has a mark.
// Returns the answer as it is shown, to be shared.
export function showAnswer({ kind, content: [{ text, annotations }] }, support) {
  const statements = support?.statements ?? [];
  const numbers = new Map(); // one number for each passage, also if it is cited several times
  for (const citation of annotations) {
    const passage = passageOf(citation);
    if (!numbers.has(passage)) numbers.set(passage, numbers.size + 1);
  }
  result.hidden = false;
  answer.className = kind;
  answer.classList.toggle("blocks", HAS_BLOCKS.test(text));
  answer.replaceChildren(...citedText(text, annotations, numbers, kind === "generated", statements));
  answer.removeAttribute("aria-busy");
  const firsts = [...numbers.keys()].map((passage) => annotations.find((citation) => passageOf(citation) === passage));
  sources.replaceChildren(...firsts.map((citation, place) => sourceItem(citation, citation.quote, () => showPassage(firsts, place))));
  if (!firsts.length) sources.append(make("li", "none", "This answer cites no passage."));
  const reasons = statements.filter(isUnsupported).map(({ reason }) => reason);
  showReasons(reasons);
  return { answer: writtenText(), reasons, sources: firsts };
}

function isUnsupported({ verdict }) {
  return verdict === "unsupported";
}

// The answer as text, with the numbers of its sources.
function writtenText() {
  const copy = answer.cloneNode(true);
  for (const button of copy.querySelectorAll(".reference")) button.replaceWith(`[${button.textContent}]`);
  return copy.textContent;
}

// Lists why statements are marked, for those who cannot point at them.
function showReasons(reasons) {
  check.hidden = !reasons.length;
  check.querySelector("p").textContent = reasons.length === 1 ? "No source holds the statement that is marked:" : "No source holds the statements that are marked:";
  check.querySelector("ul").replaceChildren(
    ...reasons.map((reason, number) => {
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
  found.querySelector("ul").replaceChildren(...results.map((passage, place) => sourceItem(passage, passage.text, () => showPassage(results, place))));
}

function passageOf({ file_id: id, start, end }) {
  return `${id} ${start} ${end}`;
}

function citedText(text, annotations, numbers, hasMarkers, statements) {
  const characters = [...text]; // an index counts characters, not UTF-16 units
  const parts = [];
  let from = 0;
  let unsupported = 0;
  for (const statement of statements) {
    parts.push(...citedPart(from, statement.start));
    const part = citedPart(statement.start, statement.end);
    if (isUnsupported(statement)) {
      const marked = make("mark", "unsupported", "");
      marked.title = statement.reason;
      marked.setAttribute("aria-describedby", `unsupported-${unsupported++}`);
      marked.append(...part);
      parts.push(marked);
    } else parts.push(...part);
    parts.push(verdictMark(statement));
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

// A sign behind a statement, which says the verdict when it is pointed at or focused.
function verdictMark({ verdict, reason }) {
  const mark = make("span", `verdict ${verdict}`, "");
  mark.tabIndex = 0;
  mark.setAttribute("role", "img");
  mark.title = reason ? `${VERDICTS[verdict]}: ${reason}` : VERDICTS[verdict];
  mark.setAttribute("aria-label", mark.title);
  return mark;
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

function sourceItem({ filename, location }, text, show) {
  const item = document.createElement("li");
  item.tabIndex = -1;
  const place = make("p", "place", "");
  place.append(make("cite", "", filename));
  if (location) place.append(make("span", "", location));
  const open = make("button", "quiet open", "Show in document");
  open.type = "button";
  open.setAttribute("aria-label", `Show in ${filename}${location ? `, ${location}` : ""}`);
  open.onclick = show;
  item.append(place, make("blockquote", "", text), open);
  return item;
}

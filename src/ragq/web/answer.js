// Shows an answer and its sources. Text from documents or models is set as text, never as HTML.

import { citedText } from "./cited.js";
import { make } from "./element.js";
import { joinLines } from "./lines.js";
import { showPassage } from "./passage.js";

const result = document.getElementById("result");
const answer = document.getElementById("answer");
const sources = document.getElementById("sources");
const found = document.getElementById("found");
const check = document.getElementById("check");
const tools = document.getElementById("tools");

const HAS_BLOCKS = /\n\n|```|\n\s*(?:[-*•]|\d{1,3}[.)])\s/; // passages, code, steps
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
  answer.replaceChildren(...citedText({ text }, { reference, statements, wrap: marker() }).nodes);
}

// Shows the finished answer; `kind` tells whether it contains an LLM's markers. Each statement that was checked has a mark.
// Returns the answer as it is shown, to be shared.
export function showAnswer({ kind, content: [said] }, support) {
  const statements = support?.statements ?? [];
  const { nodes, passages } = citedText(said, { hasMarkers: kind === "generated", isCopied: kind === "extractive", reference, statements, wrap: marker() });
  result.hidden = false;
  answer.className = kind;
  answer.classList.toggle("blocks", HAS_BLOCKS.test(said.text));
  answer.replaceChildren(...nodes);
  settle();
  sources.replaceChildren(...passages.map((passage, place) => sourceItem(passage, passage.quote, () => showPassage(passages, place))));
  if (!passages.length) sources.append(make("li", "none", "This answer cites no passage."));
  const reasons = statements.filter(isUnsupported).map(({ reason }) => reason);
  showReasons(reasons);
  return { answer: writtenText(), reasons, sources: passages };
}

// Ends the writing. Marks take the focus only now: each piece of an answer that is written replaces them.
function settle() {
  answer.removeAttribute("aria-busy");
  for (const mark of answer.querySelectorAll(".verdict")) mark.tabIndex = 0;
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
  settle();
  result.className = "unfinished";
}

// Shows the search results, cited or not.
export function showFound(results) {
  if (!results?.length) return;
  found.hidden = false;
  found.open = false;
  found.querySelector("summary").textContent = results.length === 1 ? "The passage found" : `All ${results.length} passages found`;
  found.querySelector("ul").replaceChildren(...results.map((passage, place) => sourceItem(passage, joinLines(passage.text, passage.filename), () => showPassage(results, place))));
}

// Returns what marks the statements of an answer one after the other.
function marker() {
  let unsupported = 0;
  return (statement, part) => {
    const mark = verdictMark(statement);
    if (!isUnsupported(statement)) return [...part, mark];
    const marked = make("mark", "unsupported", "");
    marked.title = statement.reason;
    marked.setAttribute("aria-describedby", `unsupported-${unsupported++}`);
    marked.append(...part);
    return [marked, mark];
  };
}

// A sign behind a statement, which says the verdict when it is pointed at or focused.
function verdictMark({ verdict, reason }) {
  const mark = make("span", `verdict ${verdict}`, "");
  mark.setAttribute("role", "img");
  mark.title = reason ? `${VERDICTS[verdict]}: ${reason}` : VERDICTS[verdict];
  mark.setAttribute("aria-label", mark.title);
  return mark;
}

function reference(place) {
  const button = make("button", "reference", String(place + 1));
  button.type = "button";
  button.setAttribute("aria-label", `Source ${place + 1}`);
  button.onclick = () => {
    const source = sources.children[place];
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

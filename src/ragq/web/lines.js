// The lines of a PDF end where the page does. As in `ragq.terminal`, they are joined when they are shown; quotes keep them.

const PDF = /\.pdf$/i;
const OWN_LINE = /^(?:\s|#|\||```|[-*+•▪‣◦–]\s|\(?(?:\d{1,3}|[a-zA-Z])[.)]\s)/; // headings, rows, code, items
const ROW = /^[^:;]{1,60}: [^;]*; [^:;]{1,60}: /; // of a table: "Header: value; Header: value"
const SHORT = 30; // a line of fewer characters, such as one of a form or an address, ended on purpose

// Returns a text with the single line breaks within the paragraphs of a PDF as spaces.
export function joinLines(text, filename) {
  if (!PDF.test(filename ?? "") || text.includes("```")) return text;
  const lines = text.split("\n");
  return lines.slice(1).reduce((joined, line, before) => joined + (goesOn(lines, before) || isWrapped(lines[before], line) ? " " : "\n") + line, lines[0]);
}

// A quote may begin at the end of a line, which is short then.
function goesOn(lines, before) {
  return !lines[before - 1] && lines[before] !== "" && /^\p{Ll}/u.test(lines[before + 1]);
}

function isWrapped(before, line) {
  return before.trim().length >= SHORT && line.trim() !== "" && !OWN_LINE.test(line) && !before.startsWith("#") && !(ROW.test(before) && ROW.test(line));
}

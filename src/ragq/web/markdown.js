// Writes an answer as Markdown that shows what the page shows: no text of a document, a model or a question becomes markup.

// What may begin markup anywhere, and what makes an address a link.
const MARKUP = /[\\`*_{}[\]<>&~|$^@]|:(?=\/\/)|(?<=www)\./gi;
const LINE_START = /^(?:[#+=:-]|\d+(?=[.)]))/; // what may begin a heading, a list, a line across or a definition

// Writes a question, its answer, why statements of it are marked, and the sources, which have a name, a location and a quote.
export function writeMarkdown({ question, answer, reasons, sources }) {
  const parts = [question && `**Question**\n\n${escape(question)}`, `**Answer**\n\n${escape(answer)}`];
  if (reasons.length) parts.push(`**Not held by any source**\n\n${reasons.map((reason) => `- ${escapeLine(reason)}`).join("\n")}`);
  if (sources.length) parts.push(`**Sources**\n\n${sources.map(writeSource).join("\n\n")}`);
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

function writeSource({ filename, location, quote }, place) {
  const number = `${place + 1}. `;
  const margin = " ".repeat(number.length);
  const where = location ? `, ${escapeLine(location)}` : "";
  const quoted = escape(quote).split("\n").map((line) => `${margin}> ${line}`.trimEnd()).join("\n");
  return `${number}**${escapeLine(filename)}**${where}\n\n${quoted}`;
}

// Text with its lines: those of a paragraph end with a backslash, which breaks a line.
function escape(text) {
  const paragraphs = text.split(/\r\n|\r|\n/).map(escapeStart).join("\n").split(/\n{2,}/);
  return paragraphs.map((paragraph) => paragraph.trim().split("\n").join("\\\n")).filter(Boolean).join("\n\n");
}

function escapeLine(text) {
  return escapeStart(text.replace(/\s+/g, " "));
}

// A line's own blanks would make it code.
function escapeStart(line) {
  return line.trim().replace(MARKUP, "\\$&").replace(LINE_START, (start) => (/\d/.test(start) ? `${start}\\` : `\\${start}`));
}

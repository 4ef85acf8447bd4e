// Charts of the last minutes, as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;

function draw(tag, attributes) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Draws lines over time. `lines` have a name, a class and values, one for each step, null where nothing is known. The label says the last ones.
export function chart(title, lines, format) {
  const most = Math.max(1, ...lines.flatMap((line) => line.values.map((value) => value ?? 0)));
  const said = lines.map((line) => `${line.name} ${format(line.values.findLast((value) => value !== null) ?? 0)}`);
  const label = `${title}: ${said.join(", ")}; at most ${format(most)}`;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, preserveAspectRatio: "none" });
  svg.append(draw("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1, class: "axis" }));
  for (const line of lines) {
    const step = WIDTH / Math.max(1, line.values.length - 1);
    const points = line.values.map((value, n) => (value === null ? null : [n * step, HEIGHT - 2 - (value / most) * (HEIGHT - 6)]));
    svg.append(draw("path", { d: path(points), class: `line ${line.kind}` }));
  }
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const legend = said.map((text, n) => {
    const span = document.createElement("span");
    span.className = `legend ${lines[n].kind}`;
    span.textContent = text;
    return span;
  });
  const name = document.createElement("b");
  name.textContent = title;
  caption.append(name, ...legend);
  figure.append(caption, svg);
  return figure;
}

// Begins anew behind a gap; a point alone is a short line.
function path(points) {
  let text = "";
  points.forEach((point, n) => {
    if (point === null) return;
    const [x, y] = point.map((number) => number.toFixed(1));
    const isFirst = n === 0 || points[n - 1] === null;
    text += `${isFirst ? "M" : "L"}${x} ${y}`;
    if (isFirst && (points[n + 1] ?? null) === null) text += "h2";
  });
  return text;
}

// Two small charts in SVG: no library, no network.

const SVG = "http://www.w3.org/2000/svg";

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// Probability of a class under both systems and the switch, and the discriminator's doubt, over the levels.
export function drawSweep(svg, sweep, classIndex, level) {
  const left = 42, right = 334, top = 10, bottom = 186, last = sweep.levels.length - 1;
  const x = (i) => left + ((right - left) * i) / last;
  const y = (share) => bottom - (bottom - top) * share;
  svg.replaceChildren();
  for (const share of [0, 0.5, 1]) {
    add(svg, "line", { class: "axis", x1: left, x2: right, y1: y(share), y2: y(share) });
    add(svg, "text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`);
  }
  for (const i of [0, last]) {
    add(svg, "text", { x: x(i), y: bottom + 16, "text-anchor": i ? "end" : "start" }, `${+sweep.levels[i].toFixed(2)}`);
  }
  add(svg, "text", { x: (left + right) / 2, y: bottom + 16, "text-anchor": "middle" }, sweep.severity);
  const line = (name, values) =>
    add(svg, "polyline", { class: `line ${name}`, points: values.map((v, i) => `${x(i)},${y(v)}`).join(" ") });
  const share = (system) => system.probabilities.map((row) => row[classIndex]);
  line("limit", sweep.doubt.map(() => sweep.threshold));
  line("doubtful", sweep.doubt);
  line("trusted", share(sweep.trusted));
  line("fallback", share(sweep.fallback));
  line("switch", share(sweep.chosen));
  add(svg, "line", { class: "now", x1: x(level), x2: x(level), y1: top, y2: bottom });
  const entries = [
    ["trusted", "RGB + depth", 0, 0], ["fallback", "RGB + hallucination", 0, 1], ["switch", "switch", 0, 2],
    ["doubtful", "discriminator's doubt", 1, 0], ["limit", "its threshold", 1, 1],
  ];
  for (const [name, text, column, row] of entries) {
    const at = 8 + 170 * column, down = bottom + 36 + 18 * row;
    add(svg, "line", { class: `line ${name}`, x1: at, x2: at + 22, y1: down, y2: down });
    add(svg, "text", { x: at + 28, y: down + 4 }, text);
  }
}

// Real and hallucinated features of validation clips, this clip's among them, and its real ones under noise.
export function drawCloud(svg, cloud, clip, label, noisy) {
  const left = 4, right = 336, top = 4, bottom = 204;
  const every = [...cloud.real, ...cloud.hallucinated, clip.real, clip.hallucinated, ...noisy.path];
  const [x, y] = [0, 1].map((axis) => {
    const values = every.map((point) => point[axis]);
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    return axis === 0
      ? (point) => left + 8 + ((right - left - 16) * (point[0] - low)) / span
      : (point) => bottom - 8 - ((bottom - top - 16) * (point[1] - low)) / span;
  });
  svg.replaceChildren();
  add(svg, "rect", { class: "axis", x: left, y: top, width: right - left, height: bottom - top, fill: "none" });
  const mark = (point, kind, rank, radius) =>
    add(svg, "circle", { class: `${kind} ${rank}`, cx: x(point), cy: y(point), r: radius });
  for (const rank of ["faint", "same"]) {
    cloud.labels.forEach((name, i) => {
      if ((name === label) !== (rank === "same")) return;
      mark(cloud.real[i], "real", rank, 3);
      mark(cloud.hallucinated[i], "hallucinated", rank, 3.5);
    });
  }
  const now = noisy.path[noisy.level];
  add(svg, "polyline", { class: "link", fill: "none", points: noisy.path.slice(0, noisy.level + 1).map((p) => `${x(p)},${y(p)}`).join(" ") });
  mark(clip.hallucinated, "hallucinated", "this", 7);
  mark(now, "real", "this", 7);
  const legend = (at, kind, text) => {
    add(svg, "circle", { class: kind, cx: at, cy: bottom + 18, r: 5 });
    add(svg, "text", { x: at + 10, y: bottom + 22 }, text);
  };
  legend(left + 8, "real", "from depth");
  legend(left + 170, "hallucinated", "hallucinated from RGB");
  add(svg, "text", { x: left + 2, y: bottom + 41 }, "Large: this clip; its line: depth as the noise grows.");
}

// Drawing of a laid-out graph, on a canvas or as SVG: only what is in sight, and no text that is too small to read.
"use strict";

const FONT = "system-ui, 'DejaVu Sans', sans-serif";
const SMALLEST_TEXT = 5; // pixels
const LONG = 1500,
  MANY = 4; // of an edge, of long edges from one node
const HEIGHT = 34,
  LOW = 20; // of a node with two lines, with one

const measuring = document.createElement("canvas").getContext("2d");
function textWidth(text, size, bold = false) {
  measuring.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
  return measuring.measureText(text).width;
}

function shortened(text, width, size, bold = false) {
  if (textWidth(text, size, bold) <= width) return text;
  let low = 0,
    high = text.length;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (textWidth(`…${text.slice(text.length - middle)}`, size, bold) <= width) low = middle;
    else high = middle - 1;
  }
  return `…${text.slice(text.length - low)}`;
}

// Give each node a size and the lines of its label.
function sizeNodes(nodes) {
  for (const node of nodes) {
    if (node.record === null || node.isContainer) continue;
    const record = node.record;
    const isLow = ["view", "input", "output", "argument", "size"].includes(record.kind);
    const first = ["input", "output", "argument", "constant"].includes(record.kind) ? record.name : record.op;
    const second = isLow || record.kind === "constant" ? null : record.name;
    const widest = Math.max(textWidth(first, 12, true), second === null ? 0 : textWidth(second, 10.5));
    node.width = Math.max(46, Math.min(170, widest + 16));
    node.height = second === null ? LOW : HEIGHT;
    node.first = shortened(first, node.width - 12, 12, true);
    node.second = second === null ? null : shortened(second, node.width - 12, 10.5);
  }
}

// Surfaces take rectangles, curves through points, and text.
class CanvasSurface {
  constructor(context) {
    this.context = context;
  }
  rectangle(box, radius, fill, stroke, width = 1, dash = []) {
    const context = this.context;
    context.beginPath();
    context.roundRect(box.x, box.y, box.width, box.height, radius);
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = width;
      context.setLineDash(dash);
      context.stroke();
      context.setLineDash([]);
    }
  }
  curve(segments, stroke, width, opacity = 1) {
    const context = this.context;
    context.beginPath();
    for (const [kind, ...numbers] of segments) {
      if (kind === "M") context.moveTo(...numbers);
      else if (kind === "L") context.lineTo(...numbers);
      else if (kind === "Q") context.quadraticCurveTo(...numbers);
      else context.bezierCurveTo(...numbers);
    }
    context.globalAlpha = opacity;
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.lineCap = "round";
    context.lineJoin = "round";
    context.stroke();
    context.globalAlpha = 1;
  }
  text(text, x, y, size, fill, bold = false, anchor = "center") {
    const context = this.context;
    context.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
    context.fillStyle = fill;
    context.textAlign = anchor;
    context.textBaseline = "middle";
    context.fillText(text, x, y);
  }
}

// An element of SVG as text.
function tag(name, attributes, content = "") {
  const escape = (text) => String(text).replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`);
  const given = Object.entries(attributes).filter(([, value]) => value !== null);
  const number = (value) => (typeof value === "number" ? Number(value.toFixed(2)) : value);
  const text = given.map(([key, value]) => ` ${key}="${escape(number(value))}"`).join("");
  return `<${name}${text}>${escape(content)}</${name}>`;
}

class SvgSurface {
  constructor() {
    this.parts = [];
  }
  rectangle({ x, y, width, height }, radius, fill, stroke, line = 1, dash = []) {
    const style = { fill: fill || "none", stroke: stroke || "none", "stroke-width": line };
    const dashes = dash.length ? dash.join(" ") : null;
    this.parts.push(tag("rect", { x, y, width, height, rx: radius, ...style, "stroke-dasharray": dashes }));
  }
  curve(segments, stroke, width, opacity = 1) {
    const d = segments.map(([kind, ...numbers]) => kind + numbers.map((each) => each.toFixed(1)).join(" ")).join("");
    const style = { fill: "none", stroke, "stroke-width": width, "stroke-linecap": "round", opacity };
    this.parts.push(tag("path", { d, ...style }));
  }
  text(text, x, y, size, fill, bold = false, anchor = "center") {
    const anchors = { center: "middle", left: "start", right: "end" };
    const style = { "font-size": size, "font-weight": bold ? "600" : null, "text-anchor": anchors[anchor], fill };
    this.parts.push(tag("text", { x, y, "dominant-baseline": "central", ...style }, text));
  }
  document({ x, y, width, height }, back) {
    const background = tag("rect", { x, y, width, height, fill: back });
    const open = tag("svg", {
      xmlns: "http://www.w3.org/2000/svg",
      viewBox: `${x} ${y} ${width} ${height}`,
      width,
      height,
      "font-family": FONT,
    }).replace("</svg>", "");
    return [open, background, ...this.parts, "</svg>\n"].join("\n");
  }
}

// The route of an edge as segments of a path: from the bottom of a node to the top of another, through points between.
function pathOf(edge, from, to, points) {
  const start = { x: from.x + from.width / 2, y: from.y + from.height };
  const end = { x: to.x + to.width / 2, y: to.y };
  const inner = (points ?? []).slice(1, -1);
  if (inner.length < 2) {
    const bend = Math.max(12, Math.min(60, Math.abs(end.y - start.y) / 2));
    return [
      ["M", start.x, start.y],
      ["C", start.x, start.y + bend, end.x, end.y - bend, end.x, end.y],
    ];
  }
  const segments = [["M", start.x, start.y]];
  inner.forEach((point, index) => {
    const next = inner[index + 1] ?? end;
    segments.push(["Q", point.x, point.y, (point.x + next.x) / 2, (point.y + next.y) / 2]);
  });
  return [...segments, ["L", end.x, end.y]];
}

// Of an edge from afar that many others are like, such as from a mask that each layer reads, only its end is drawn.
function stubOf(edge) {
  const [x, y] = edge.path.at(-1).slice(-2);
  return [
    ["M", x, y - 9],
    ["L", x, y],
  ];
}

// Find the long edges, and those of them whose source has many.
function markFarEdges(edges) {
  const long = new Map();
  for (const edge of edges) {
    edge.isLong = Boolean(edge.path) && edge.extent.width + edge.extent.height > LONG;
    if (edge.isLong) long.set(edge.from, (long.get(edge.from) ?? 0) + 1);
  }
  for (const edge of edges) edge.isFar = edge.isLong && long.get(edge.from) > MANY;
}

// Edges are as wide as the logarithm of their bytes says, between the smallest and the largest of the graph.
function edgeWidths(edges) {
  const sizes = edges.filter((edge) => !edge.isInside && edge.bytes > 0).map((edge) => Math.log(edge.bytes));
  const low = Math.min(...sizes),
    high = Math.max(...sizes);
  return (edge) =>
    edge.isInside || !(edge.bytes > 0)
      ? 1
      : high > low
        ? 1.2 + 5.3 * ((Math.log(edge.bytes) - low) / (high - low)) ** 1.5
        : 2;
}

const overlaps = (box, sight) =>
  box.x < sight.x + sight.width &&
  box.x + box.width > sight.x &&
  box.y < sight.y + sight.height &&
  box.y + box.height > sight.y;
const grown = (box, by) => ({ x: box.x - by, y: box.y - by, width: box.width + 2 * by, height: box.height + 2 * by });

// Draw what is in sight. `style` has the colors, the fill of nodes, and what is marked.
function draw(surface, graph, sight, scale, style) {
  const isReadable = 11 * scale >= SMALLEST_TEXT;
  const visible = graph.nodes.filter((node) => node.box && overlaps(node.box, sight));
  for (const node of visible) if (node.isContainer && !node.isVirtual) drawContainer(surface, node, style);
  if (graph.merged) drawHulls(surface, graph, sight, style);
  const drawEdge = (edge, isMarked) => {
    const width = Math.max(graph.widthOf(edge), 0.7 / scale);
    const path = edge.isFar && !isMarked ? stubOf(edge) : edge.path;
    surface.curve(
      path,
      isMarked ? style.colors.accent : style.colors.edge,
      width,
      isMarked ? 1 : edge.isLong ? 0.3 : edge.isInside ? 0.55 : 0.75,
    );
  };
  const inSight = graph.edges.filter((edge) => edge.path && overlaps(edge.extent, sight));
  const isMarked = (edge) => style.selected !== null && (edge.from === style.selected || edge.to === style.selected);
  for (const edge of inSight) if (!isMarked(edge)) drawEdge(edge, false);
  for (const edge of inSight) if (isMarked(edge)) drawEdge(edge, true);
  for (const node of visible) if (isReadable && node.isContainer && !node.isVirtual) drawTitle(surface, node, style);
  for (const node of visible) if (!node.isContainer) drawNode(surface, node, isReadable, style);
}

function drawContainer(surface, node, style) {
  const isKernel = node.record.kind === "kernel";
  const differs = style.differs.kernels.has(node.id);
  const isSelected = style.selected === node.id;
  const stroke = isSelected
    ? style.colors.accent
    : differs
      ? style.colors.differs
      : isKernel
        ? style.colors["kernel-line"]
        : style.colors.line;
  surface.rectangle(node.box, 8, style.fillOf(node), stroke, isSelected || differs ? 2.5 : 1.2, differs ? [6, 3] : []);
}

// Above the edges, on the color of the container, so that an edge does not cross letters.
function drawTitle(surface, node, style) {
  const isKernel = node.record.kind === "kernel";
  const name = isKernel ? `@${node.record.name}` : `${node.record.op} ${node.record.name}`;
  const text = shortened(name, node.box.width - 14, 10.5);
  const box = { x: node.box.x + 5, y: node.box.y + 3, width: textWidth(text, 10.5) + 4, height: 13 };
  surface.rectangle(box, 2, style.fillOf(node), null);
  surface.text(text, node.box.x + 7, node.box.y + 9.5, 10.5, style.inkOf(node), false, "left");
}

// Kernels during fusion: the boxes of their members, grown, and the edges between these as bands.
function drawHulls(surface, graph, sight, style) {
  for (const edge of graph.edges) {
    if (edge.isInside && edge.path && overlaps(edge.extent, sight)) surface.curve(edge.path, style.colors.kernel, 22);
  }
  const latest = graph.merged.latest?.key ?? null;
  const outlined = (group) => group === latest || style.differs.kernels.has(group);
  for (const node of graph.nodes) {
    if (!node.group || !node.box || !overlaps(node.box, sight)) continue;
    const stroke = style.differs.kernels.has(node.group) ? style.colors.differs : style.colors.accent;
    surface.rectangle(
      grown(node.box, 6),
      9,
      style.colors.kernel,
      outlined(node.group) ? stroke : style.colors["kernel-line"],
      outlined(node.group) ? 2.5 : 1,
    );
  }
  for (const edge of graph.edges) {
    if (edge.isInside && edge.path && overlaps(edge.extent, sight)) surface.curve(edge.path, style.colors.kernel, 20);
  }
}

function drawNode(surface, node, isReadable, style) {
  const isSelected = style.selected === node.id,
    isFound = style.found.has(node.id);
  const differs = style.differs.nodes.has(node.id);
  const stroke = isSelected || isFound ? style.colors.accent : differs ? style.colors.differs : style.colors.edge;
  const round = ["input", "output", "argument"].includes(node.record.kind) ? node.box.height / 2 : 5;
  surface.rectangle(
    node.box,
    round,
    isFound && !isSelected ? style.colors.mark : style.fillOf(node),
    stroke,
    isSelected || isFound ? 2.5 : differs ? 2 : 1,
    differs ? [4, 3] : [],
  );
  if (!isReadable) return;
  const x = node.box.x + node.box.width / 2,
    y = node.box.y,
    ink = isFound && !isSelected ? style.colors.text : style.inkOf(node);
  surface.text(node.first, x, y + (node.second === null ? node.box.height / 2 : 11.5), 12, ink, true);
  if (node.second !== null) surface.text(node.second, x, y + 25, 10.5, ink);
}

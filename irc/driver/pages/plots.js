// Plots as SVG: points or lines on two axes, each linear from zero or logarithmic.
"use strict";

const WIDTH = 520,
  HEIGHT = 330,
  LEFT = 88,
  RIGHT = 16,
  TOP = 12,
  BOTTOM = 46; // of a plot, and around its area
const FONT_SIZE = 12,
  LINE = 14;
const CHARACTER = 7.4; // an upper estimate of the width of a letter
const MARGIN = 0.06; // of the width, beside the ticks of a logarithmic axis that are given

function svgElement(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// From numbers to pixels, with ticks. A logarithmic axis ends at powers of ten, or beside the ticks that are given.
function scale(values, isLog, from, to, given = null) {
  if (given) {
    const [low, high] = [Math.log(Math.min(...given)), Math.log(Math.max(...given))];
    const inner = (to - from) * (1 - 2 * MARGIN),
      start = from + (to - from) * MARGIN;
    return {
      at: (value) => (high > low ? start + ((Math.log(value) - low) / (high - low)) * inner : (from + to) / 2),
      ticks: given,
    };
  }
  const finite = values.filter((each) => Number.isFinite(each) && (!isLog || each > 0));
  if (isLog) {
    const low = Math.floor(Math.log10(Math.min(...finite, 1e300)) + 1e-9),
      high = Math.ceil(Math.log10(Math.max(...finite, 1e-300)) - 1e-9);
    const [bottom, top] = finite.length ? [low, Math.max(high, low + 1)] : [0, 1];
    const step = Math.max(1, Math.ceil((top - bottom) / 6));
    const ticks = [];
    for (let power = bottom; power <= top; power += step) ticks.push(10 ** power);
    return {
      at: (value) => from + ((Math.log10(value) - bottom) / (top - bottom)) * (to - from),
      ticks,
      low: 10 ** bottom,
      high: 10 ** top,
    };
  }
  const most = Math.max(...finite, 0) || 1;
  const raw = most / 5,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const top = Math.ceil(most / step - 1e-9) * step;
  const ticks = [];
  for (let index = 0; index * step <= top * (1 + 1e-9); index++) ticks.push(index * step);
  return { at: (value) => from + (value / top) * (to - from), ticks, low: 0, high: top };
}

// A marker; what the device computes in libraries is a square, so that colors need not say it.
function marker(x, y, shape, fill, title, hollow = false) {
  const style = {
    fill: hollow ? color("back") : fill,
    stroke: fill,
    "stroke-width": 1.5,
    "fill-opacity": hollow ? 1 : 0.75,
  };
  const made =
    shape === "square"
      ? svgElement("rect", { x: x - 4, y: y - 4, width: 8, height: 8, ...style })
      : svgElement("circle", { cx: x, cy: y, r: 4.5, ...style });
  made.append(svgElement("title", {}, title));
  return made;
}

// A plot of `series` ({name, color, points: [{x, y, title, shape, label}], line}), and `curves` ({points, name}), which
// are drawn in gray. Labels are left out where they would cover one another.
function plot({ title, series, curves = [], x, y }) {
  const root = svgElement("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": title,
    "font-family": "system-ui, 'DejaVu Sans', sans-serif",
    "font-size": FONT_SIZE,
  });
  root.append(svgElement("rect", { width: WIDTH, height: HEIGHT, fill: color("back") }));
  const points = series.flatMap((each) => each.points);
  const widest = Math.max(0, ...series.map((each) => (each.line ? each.name.length * CHARACTER + 10 : 0)));
  const right = WIDTH - Math.max(RIGHT, Math.min(widest, 140));
  const across = scale(
    points.map((each) => each.x),
    x.isLog,
    LEFT,
    right,
    x.ticks,
  );
  const up = scale([...points.map((each) => each.y), ...(y.include ?? [])], y.isLog, HEIGHT - BOTTOM, TOP);
  drawAxes(root, across, up, x, y, right);
  const taken = [];
  for (const curve of curves) drawCurve(root, curve, across, up, taken);
  for (const each of series) {
    const placed = each.points.map((point) => ({ ...point, px: across.at(point.x), py: up.at(point.y) }));
    if (each.line && placed.length > 1) {
      root.append(
        svgElement("polyline", {
          points: placed.map((point) => `${point.px.toFixed(1)},${point.py.toFixed(1)}`).join(" "),
          fill: "none",
          stroke: each.color,
          "stroke-width": 1.8,
          "stroke-dasharray": each.dash ?? "none",
        }),
      );
    }
    for (const point of placed) {
      root.append(marker(point.px, point.py, point.shape, each.color, point.title, point.hollow));
      taken.push({ left: point.px - 5, right: point.px + 5, top: point.py - 5, bottom: point.py + 5 });
    }
    each.placed = placed;
  }
  for (const each of series)
    for (const point of each.placed) if (point.label) drawLabel(root, point, each.color, taken);
  drawNames(
    root,
    series.filter((each) => each.line && each.placed.length),
    right,
  );
  return root;
}

function drawAxes(root, across, up, x, y, right) {
  const line = color("line"),
    text = color("text");
  for (const tick of up.ticks) {
    root.append(
      svgElement("line", { x1: LEFT, x2: right, y1: up.at(tick), y2: up.at(tick), stroke: line, "stroke-width": 1 }),
    );
    root.append(
      svgElement("text", { x: LEFT - 7, y: up.at(tick) + 4, "text-anchor": "end", fill: text }, round(y.format(tick))),
    );
  }
  const labels = new Map(across.ticks.map((tick) => [tick, round(x.format(tick))]));
  let end = -Infinity;
  for (const [tick, label] of labels) {
    const at = across.at(tick),
      half = (label.length * CHARACTER) / 2;
    root.append(svgElement("line", { x1: at, x2: at, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, stroke: text }));
    if (at - half < end + 6) continue;
    end = at + half;
    root.append(
      svgElement(
        "text",
        { x: Math.min(at, WIDTH - 2 - half), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle", fill: text },
        label,
      ),
    );
  }
  root.append(svgElement("line", { x1: LEFT, x2: right, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, stroke: text }));
  root.append(
    svgElement("text", { x: (LEFT + right) / 2, y: HEIGHT - 8, "text-anchor": "middle", fill: text }, x.name),
  );
  root.append(
    svgElement(
      "text",
      {
        x: 0,
        y: 0,
        transform: `translate(13 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`,
        "text-anchor": "middle",
        fill: text,
      },
      y.name,
    ),
  );
}

const round = (text) => text.replace(/\.0(?= )/, ""); // 1.0 MB as 1 MB

// The names of lines beside their ends, apart from one another.
function drawNames(root, series, right) {
  const ends = series.map((each) => ({ each, y: each.placed.at(-1).py })).sort((one, other) => one.y - other.y);
  let above = TOP - LINE / 2;
  const last = ends.length;
  ends.forEach((end, index) => {
    end.y = Math.min(Math.max(end.y, above + LINE), HEIGHT - BOTTOM - (last - 1 - index) * LINE);
    above = end.y;
    const most = Math.floor((WIDTH - right - 8) / CHARACTER);
    const name = end.each.name.length > most ? `${end.each.name.slice(0, most - 1)}…` : end.each.name;
    root.append(svgElement("text", { x: right + 6, y: end.y + 4, fill: end.each.color }, name));
  });
}

// Text that what is below it does not cross.
const halo = () => ({ stroke: color("back"), "stroke-width": 4, "stroke-linejoin": "round", "paint-order": "stroke" });

const isFree = (box, taken) =>
  taken.every(
    (other) => box.right <= other.left || box.left >= other.right || box.bottom <= other.top || box.top >= other.bottom,
  );

function drawCurve(root, curve, across, up, taken) {
  const clamp = (value) => Math.max(TOP, Math.min(HEIGHT - BOTTOM, value));
  const placed = curve
    .points(across.low, across.high, up.low, up.high)
    .map(([x, y]) => [across.at(x), clamp(up.at(y))]);
  if (placed.length < 2) return;
  root.append(
    svgElement("polyline", {
      points: placed.map((point) => point.map((each) => each.toFixed(1)).join(",")).join(" "),
      fill: "none",
      stroke: color("faint"),
      "stroke-width": 1.3,
      "stroke-dasharray": curve.dash ?? "5 4",
    }),
  );
  if (!curve.name) return;
  const [x, y] = placed.at(-1);
  const box = { left: x - curve.name.length * CHARACTER, right: x, top: y - 16, bottom: y - 2 };
  if (box.top < TOP - 6 || !isFree(box, taken)) return;
  taken.push(box);
  root.append(svgElement("text", { x, y: y - 5, "text-anchor": "end", fill: color("faint"), ...halo() }, curve.name));
}

function drawLabel(root, point, fill, taken) {
  const width = point.label.length * CHARACTER;
  const places = [
    [8, 4, "start"],
    [-8, 4, "end"],
    [0, -9, "middle"],
    [0, 18, "middle"],
  ];
  for (const [dx, dy, anchor] of places) {
    const x = point.px + dx,
      y = point.py + dy;
    const left = anchor === "start" ? x : anchor === "end" ? x - width : x - width / 2;
    const box = { left, right: left + width, top: y - 11, bottom: y + 3 };
    if (box.left < LEFT || box.right > WIDTH - 2 || box.top < 2 || box.bottom > HEIGHT - BOTTOM || !isFree(box, taken))
      continue;
    taken.push(box);
    root.append(svgElement("text", { x, y, "text-anchor": anchor, fill, ...halo() }, point.label));
    return;
  }
}

// A figure with its title, what else belongs above it, and a button that downloads it.
function figure(name, title, drawing, ...controls) {
  const save = () => {
    const copy = drawing.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", WIDTH);
    copy.setAttribute("height", HEIGHT);
    download(`${name}.svg`, "image/svg+xml", copy.outerHTML);
  };
  return element(
    "figure",
    { id: `figure-${name}` },
    element(
      "figcaption",
      {},
      element("strong", {}, title),
      element("span", {}, ...controls, " ", element("button", { type: "button", onclick: save }, "SVG")),
    ),
    drawing,
  );
}

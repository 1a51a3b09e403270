// The page of `irc experiment`: a table of all cases, and figures of one.
"use strict";

const NAMES = Object.keys(DATA.pipelines);
const colorOf = (name) => color(`series-${NAMES.indexOf(name) % 8}`);
const FIGURES = {
  distinct_bytes: ["global memory traffic", formatBytes],
  loaded_bytes: ["bytes loaded and stored", formatBytes],
  device_operations: ["launches and calls", (number) => String(number)],
  estimated_microseconds: ["estimated time", formatTime],
  ...(DATA.cost ? { modeled_microseconds: [`time by ${DATA.cost}`, formatTime] } : {}),
  flops: ["flops", formatCount],
  compile_seconds: ["compile time", (number) => `${number.toFixed(2)} s`],
};
const COLUMNS = [
  ["kernels", "launches", String],
  ["library_calls", "library calls", String],
  ["host_operations", "host operations", String],
  ["distinct_bytes", "traffic", formatBytes],
  ["kernel_bytes", "of kernels", formatBytes],
  ["library_bytes", "of libraries", formatBytes],
  ["host_bytes", "of the host", formatBytes],
  ["loaded_bytes", "loaded and stored", formatBytes],
  ["flops", "flops", formatCount],
  ["programs", "smallest grid", String],
  ["estimated_microseconds", "estimated", formatTime],
  ...(DATA.cost ? [["modeled_microseconds", `by ${DATA.cost}`, formatTime]] : []),
  ["compile_seconds", "compile time", (number) => `${number.toFixed(2)} s`],
  ["error", "error against f64", (number) => number.toExponential(1)],
];

const byId = (id) => document.getElementById(id);
const sizesText = (sizes) =>
  Object.entries(sizes)
    .map(([name, size]) => `${name}=${size}`)
    .join(", ");
const shownNumber = (value, format) => (value === null || value === undefined ? "–" : format(value));

let chosen = 0,
  swept = null,
  sweepFigure = "estimated_microseconds",
  pipelineName = NAMES[0];

function row(cells, attributes = {}) {
  return element("tr", attributes, ...cells.map((cell) => (cell instanceof Node ? cell : element("td", {}, cell))));
}

const swatch = (name) => element("td", { class: "text" }, element("i", { style: `background:${colorOf(name)}` }), name);
const heads = (names, texts) =>
  element(
    "thead",
    {},
    element("tr", {}, ...names.map((name, index) => element("th", { class: index < texts ? "text" : "" }, name))),
  );

// -- tables ----------------------------------------------------------------------------------------------------------

// The pipelines with the geometric means of their figures, relative to the base.
function drawPipelines() {
  const ratios = [
    ["device_operations", "launches and calls"],
    ["distinct_bytes", "traffic"],
    ["loaded_bytes", "loaded and stored"],
    ["estimated_microseconds", "estimated time"],
  ];
  const rows = NAMES.map((name) => {
    const summary = DATA.summary[name];
    const cells = ratios.map(([figure]) =>
      name === DATA.base ? "1" : shownNumber(summary?.[figure], (number) => number.toPrecision(3)),
    );
    return row([
      swatch(name),
      element("td", { class: "text long" }, element("code", {}, DATA.pipelines[name])),
      ...cells,
      name === DATA.base ? "base" : String(summary?.cases ?? 0),
    ]);
  });
  byId("pipelines").replaceChildren(
    heads(["pipeline", "passes", ...ratios.map(([, title]) => title), "cases"], 2),
    element("tbody", {}, ...rows),
  );
}

function drawCases() {
  const rows = DATA.cases.flatMap((each, index) =>
    NAMES.map((name, place) => {
      const measured = each.measured[name];
      const first = place
        ? [element("td"), element("td")]
        : [element("td", { class: "text" }, each.model), element("td", { class: "text" }, sizesText(each.sizes))];
      const attributes = { class: index === chosen ? "selectable chosen" : "selectable", onclick: () => choose(index) };
      if (measured.failure)
        return row(
          [...first, swatch(name), element("td", { class: "text bad", colspan: COLUMNS.length }, measured.failure)],
          attributes,
        );
      return row(
        [...first, swatch(name), ...COLUMNS.map(([key, , format]) => shownNumber(measured[key], format))],
        attributes,
      );
    }),
  );
  byId("cases").replaceChildren(
    heads(["model", "sizes", "pipeline", ...COLUMNS.map(([, title]) => title)], 3),
    element("tbody", {}, ...rows),
  );
}

function allRows() {
  const symbols = [...new Set(DATA.cases.flatMap((each) => Object.keys(each.sizes)))];
  const keys = [...COLUMNS.map(([key]) => key), "plan", "failure"];
  const rows = DATA.cases.flatMap((each) =>
    NAMES.map((name) => [
      each.model,
      ...symbols.map((symbol) => each.sizes[symbol]),
      name,
      ...keys.map((key) => each.measured[name][key]),
    ]),
  );
  return [["model", ...symbols.map((symbol) => `dim.${symbol}`), "pipeline", ...keys], ...rows];
}

function drawParts() {
  const measured = DATA.cases[chosen].measured[pipelineName];
  const rows = measured.parts.map((part) =>
    row([
      element("td", { class: "text" }, part.name),
      element("td", { class: "text" }, part.kind),
      part.count,
      formatBytes(part.distinct_bytes),
      formatBytes(part.loaded_bytes),
      formatCount(part.flops),
      formatTime(part.estimated_microseconds),
    ]),
  );
  byId("parts").replaceChildren(
    heads(["name", "kind", "count", "traffic", "loaded and stored", "flops", "estimated"], 2),
    element("tbody", {}, ...rows),
  );
}

function partRows() {
  const keys = ["name", "kind", "count", "distinct_bytes", "loaded_bytes", "flops", "estimated_microseconds"];
  return [keys, ...DATA.cases[chosen].measured[pipelineName].parts.map((part) => keys.map((key) => part[key]))];
}

function drawPlans() {
  const lists = Object.entries(DATA.cases[chosen].plans).flatMap(([name, lines]) =>
    lines.length
      ? [
          element("h3", {}, `The plan of ${name}, compared with that of ${NAMES[0]}`),
          element("ul", {}, ...lines.map((line) => element("li", {}, element("code", {}, line)))),
        ]
      : [],
  );
  byId("plans").replaceChildren(...lists);
}

// -- figures of one case ---------------------------------------------------------------------------------------------

function measuredNames(each) {
  return NAMES.filter((name) => !each.measured[name].failure);
}

// Bytes against launches and calls; the pipelines that none is better than in both are joined by a line.
function drawPareto(each) {
  const points = measuredNames(each).map((name) => ({
    name,
    x: each.measured[name].device_operations,
    y: each.measured[name].distinct_bytes,
  }));
  const front = points.filter(
    (point) =>
      !points.some((other) => other.x <= point.x && other.y <= point.y && (other.x < point.x || other.y < point.y)),
  );
  const steps = front.sort((one, other) => one.x - other.x || other.y - one.y);
  const curve = { dash: "2 3", points: () => steps.map(({ x, y }) => [x, y]) };
  const series = points.map((point) => ({
    name: point.name,
    color: colorOf(point.name),
    points: [
      {
        x: point.x,
        y: point.y,
        label: point.name,
        title: `${point.name}: ${point.x} launches and calls, ${formatBytes(point.y)}`,
      },
    ],
  }));
  const drawing = plot({
    title: "Traffic against launches",
    series,
    curves: steps.length > 1 ? [curve] : [],
    x: { name: "launches and calls", format: (number) => (Number.isInteger(number) ? String(number) : "") },
    y: { name: "global memory traffic", format: formatBytes },
  });
  return figure("pareto", "Traffic against launches", drawing);
}

function partText(part) {
  const time = formatTime(part.estimated_microseconds);
  return `${formatCount(part.flops)}flops, ${formatBytes(part.distinct_bytes)}, ${time}`;
}

// Each kernel and call: flops a second by the estimate, against flops for each byte, below the roofs of the device.
function drawRoofline(each) {
  const series = measuredNames(each).map((name) => ({
    name,
    color: colorOf(name),
    points: each.measured[name].parts
      .filter((part) => part.flops > 0 && part.distinct_bytes > 0 && part.estimated_microseconds > 0)
      .map((part) => ({
        x: part.flops / part.distinct_bytes,
        y: (part.flops / part.estimated_microseconds) * 1e6,
        shape: part.kind === "kernel" ? "circle" : "square",
        title: `${name}: ${part.name}, ${partText(part)}`,
      })),
  }));
  const roof = (peak, name) => ({
    name: `${name} ${formatCount(peak)}flop/s`,
    points: (low, high) => {
      const knee = peak / DATA.roofs.memory;
      return [
        [Math.max(low, Math.min(high, knee)), Math.min(peak, high * DATA.roofs.memory)],
        [high, Math.min(peak, high * DATA.roofs.memory)],
      ];
    },
  });
  const memory = {
    dash: "none",
    points: (low, high, bottom) => {
      const top = Math.max(...Object.values(DATA.roofs.peaks));
      const [left, right] = [Math.max(low, bottom / DATA.roofs.memory), Math.min(high, top / DATA.roofs.memory)];
      return left < right
        ? [
            [left, left * DATA.roofs.memory],
            [right, right * DATA.roofs.memory],
          ]
        : [];
    },
  };
  const curves = [memory, ...Object.entries(DATA.roofs.peaks).map(([name, peak]) => roof(peak, name))];
  const include = series.some((some) => some.points.length) ? Object.values(DATA.roofs.peaks) : [1];
  const drawing = plot({
    title: "Roofline",
    series,
    curves,
    x: {
      name: "flops for each byte of traffic",
      isLog: true,
      format: (number) => String(Number(number.toPrecision(2))),
    },
    y: { name: "flops a second, estimated", isLog: true, include, format: (number) => formatCount(number).trim() },
  });
  return figure("roofline", "Roofline (○ kernels, □ calls)", drawing);
}

// A figure over the sizes of one symbol, where there are several cases that differ in nothing else.
function drawSweep(each) {
  const symbols = Object.keys(each.sizes).filter((symbol) => alongside(each, symbol).length > 1);
  if (!symbols.length) return null;
  if (!symbols.includes(swept)) [swept] = symbols;
  const cases = alongside(each, swept).sort((one, other) => one.sizes[swept] - other.sizes[swept]);
  const [title, format] = FIGURES[sweepFigure];
  const series = NAMES.map((name) => ({
    name,
    color: colorOf(name),
    line: true,
    points: cases
      .filter((some) => !some.measured[name].failure && some.measured[name][sweepFigure] > 0)
      .map((some) => ({
        x: some.sizes[swept],
        y: some.measured[name][sweepFigure],
        title: `${name} at ${swept}=${some.sizes[swept]}: ${format(some.measured[name][sweepFigure])}`,
      })),
  }));
  const heights = series.flatMap((some) => some.points.map((point) => point.y));
  const isWide = Math.max(...heights) > 10 * Math.min(...heights);
  const drawing = plot({
    title: `${title} by ${swept}`,
    series,
    x: { name: swept, isLog: true, ticks: cases.map((some) => some.sizes[swept]), format: String },
    y: { name: title, isLog: isWide, format },
  });
  const figures = select(
    Object.entries(FIGURES).map(([key, [text]]) => [key, text]),
    sweepFigure,
    (key) => {
      sweepFigure = key;
      drawFigures();
    },
    "Figure",
  );
  const dims =
    symbols.length > 1
      ? select(
          symbols.map((symbol) => [symbol, symbol]),
          swept,
          (symbol) => {
            swept = symbol;
            drawFigures();
          },
          "Dim",
        )
      : null;
  return figure("sweep", `By ${swept}`, drawing, figures, " ", dims ?? "");
}

function alongside(each, symbol) {
  const rest = (sizes) =>
    JSON.stringify(
      Object.entries(sizes)
        .filter(([name]) => name !== symbol)
        .sort(),
    );
  return DATA.cases.filter((other) => other.model === each.model && rest(other.sizes) === rest(each.sizes));
}

// The estimated time of each pipeline, by kind of what takes it.
function drawTimes(each) {
  const names = measuredNames(each);
  const height = Math.max(60, 30 + names.length * 34);
  const most = Math.max(...names.map((name) => each.measured[name].estimated_microseconds), 1e-9);
  const widest = Math.min(150, Math.max(...names.map((name) => name.length * CHARACTER), 0) + 12);
  const root = svgElement("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`,
    role: "img",
    "aria-label": "Estimated time",
    "font-family": "system-ui, 'DejaVu Sans', sans-serif",
    "font-size": FONT_SIZE,
  });
  root.append(svgElement("rect", { width: WIDTH, height, fill: color("back") }));
  names.forEach((name, index) => {
    const measured = each.measured[name],
      top = 8 + index * 34;
    const kernels = measured.parts
      .filter((part) => part.kind === "kernel")
      .reduce((sum, part) => sum + part.estimated_microseconds, 0);
    const length = (time) => (time / most) * (WIDTH - widest - 86);
    const label =
      name.length * CHARACTER > widest - 8 ? `${name.slice(0, Math.floor((widest - 8) / CHARACTER) - 1)}…` : name;
    root.append(svgElement("text", { x: widest - 8, y: top + 15, "text-anchor": "end", fill: color("text") }, label));
    root.append(
      svgElement("rect", { x: widest, y: top, width: Math.max(0, length(kernels)), height: 22, fill: colorOf(name) }),
    );
    root.append(
      svgElement("rect", {
        x: widest + length(kernels),
        y: top,
        width: Math.max(0, length(measured.estimated_microseconds - kernels)),
        height: 22,
        fill: colorOf(name),
        "fill-opacity": 0.4,
      }),
    );
    root.append(
      svgElement(
        "text",
        { x: widest + length(measured.estimated_microseconds) + 6, y: top + 15, fill: color("text") },
        formatTime(measured.estimated_microseconds),
      ),
    );
  });
  root.append(
    svgElement("text", { x: widest, y: height - 6, fill: color("faint") }, "full color: kernels; pale: calls"),
  );
  return figure("times", "Estimated time", root);
}

function select(options, value, change, label) {
  const list = element("select", { "aria-label": label, onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) list.append(element("option", { value: key, selected: key === value }, text));
  return list;
}

function drawFigures() {
  const each = DATA.cases[chosen];
  const figures = measuredNames(each).length
    ? [drawPareto(each), drawRoofline(each), drawSweep(each), drawTimes(each)]
    : [];
  byId("figures").replaceChildren(...figures.filter(Boolean));
}

// -- choosing --------------------------------------------------------------------------------------------------------

function drawSizes() {
  const each = DATA.cases[chosen],
    same = DATA.cases.filter((other) => other.model === each.model);
  const labels = Object.keys(each.sizes).map((symbol) => {
    const sizes = [...new Set(same.map((other) => other.sizes[symbol]))];
    if (sizes.length < 2) return element("span", { class: "faint" }, `${symbol}=${each.sizes[symbol]}`);
    const change = (size) => {
      const fits = (other) =>
        Object.keys(each.sizes).filter(
          (name) => other.sizes[name] === (name === symbol ? Number(size) : each.sizes[name]),
        ).length;
      const best = same
        .filter((other) => other.sizes[symbol] === Number(size))
        .sort((one, other) => fits(other) - fits(one))[0];
      choose(DATA.cases.indexOf(best));
    };
    return element(
      "label",
      {},
      `${symbol} `,
      select(
        sizes.map((size) => [String(size), String(size)]),
        String(each.sizes[symbol]),
        change,
        symbol,
      ),
    );
  });
  byId("sizes").replaceChildren(...labels);
}

function choose(index) {
  chosen = index;
  byId("model").value = DATA.cases[chosen].model;
  draw();
}

function draw() {
  drawPipelines();
  drawCases();
  drawSizes();
  drawFigures();
  drawParts();
  drawPlans();
}

byId("title").textContent = `irc experiment: ${NAMES.join(", ")}`;
byId("remark").textContent =
  `Figures are ${DATA.label}. Device: ${DATA.device_summary}. ` +
  `Below: geometric means of ratios to ${DATA.base}; less than 1 is better.`;
for (const model of new Set(DATA.cases.map((each) => each.model)))
  byId("model").append(element("option", { value: model }, model));
byId("model").addEventListener("change", (event) =>
  choose(DATA.cases.findIndex((each) => each.model === event.target.value)),
);
for (const name of NAMES) byId("pipeline").append(element("option", { value: name }, name));
byId("pipeline").addEventListener("change", (event) => {
  pipelineName = event.target.value;
  drawParts();
});
byId("csv").addEventListener("click", () => download("experiment.csv", "text/csv", csv(allRows())));
byId("parts-csv").addEventListener("click", () => download(`${pipelineName}.csv`, "text/csv", csv(partRows())));
themes.push(draw);
draw();
document.documentElement.dataset.state = "ready";

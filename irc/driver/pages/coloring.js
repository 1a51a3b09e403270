// Colors of nodes by a figure, and the legend.
"use strict";

const COLORINGS = { kind: "kind", us: "time", bytes: "bytes", ...(hasErrors() ? { error: "error" } : {}) };
const LEGEND = ["kernel", "library", "host", "view", "constant", "input"];
const NAMES = { host: "other operation", constant: "weight", input: "input, output" };
let coloring = "kind"; // one of COLORINGS

function hasErrors() {
  return DATA.pipelines.some((pipeline) => pipeline.stages.some((stage) => stage.errors));
}

// For each node a number from 0 to 1 on a logarithmic scale of a figure; inside of a kernel that of the kernel.
function heatOf(graph, figure) {
  const heat = new Map();
  if (figure === "kind") return heat;
  const figureOf = (record) =>
    figure === "error"
      ? errorOf(graph, record)
      : (record[figure] ?? graph.records.get(record.parent)?.[figure]);
  const amounts = new Map();
  for (const node of graph.nodes) {
    const amount = node.record ? figureOf(node.record) : undefined;
    if (amount !== undefined && amount !== null)
      amounts.set(node.id, Math.max(amount, figure === "error" ? 1e-9 : 1e-3));
  }
  const logs = [...amounts.values()].map(Math.log);
  const low = figure === "error" ? Math.log(1e-8) : Math.min(...logs);
  const high = figure === "error" ? Math.log(1e-1) : Math.max(...logs);
  for (const [id, amount] of amounts)
    heat.set(id, high > low ? Math.max(0, Math.min(1, (Math.log(amount) - low) / (high - low))) : 0.5);
  heat.range = amounts.size ? [Math.exp(low), Math.exp(high)] : null;
  return heat;
}

// From pale yellow over orange to dark red: lightness falls evenly, so that it also reads in gray.
function heatColor(heat) {
  const stops = [
    [255, 247, 214],
    [253, 205, 120],
    [240, 120, 60],
    [185, 35, 45],
    [95, 10, 40],
  ];
  const place = heat * (stops.length - 1),
    index = Math.min(stops.length - 2, Math.floor(place)),
    part = place - index;
  const mixed = stops[index].map((each, channel) => Math.round(each + (stops[index + 1][channel] - each) * part));
  return `rgb(${mixed.join(",")})`;
}

function drawLegend(view) {
  view.legend.replaceChildren();
  if (coloring === "kind") {
    const kinds = new Set(view.graph.nodes.map((node) => node.record?.kind));
    if (view.graph.merged) kinds.add("kernel");
    for (const kind of LEGEND.filter((each) => kinds.has(each))) {
      view.legend.append(
        element("span", {}, element("i", { style: `background:${view.colors[kind]}` }), NAMES[kind] ?? kind),
      );
    }
    return;
  }
  const range = view.heat.range;
  if (!range) {
    view.legend.append("no figures at this stage");
    return;
  }
  const format = { us: formatTime, bytes: formatBytes, error: (number) => number.toExponential(0) }[coloring];
  const gradient = [0, 0.25, 0.5, 0.75, 1].map(heatColor).join(",");
  view.legend.append(
    format(range[0]),
    element("span", { class: "scale", style: `background:linear-gradient(90deg,${gradient})` }),
    format(range[1]),
  );
}

// The panel beside the graph: the IR of what is selected, its source line, Triton lines and schedule.
"use strict";

function definitions(rows) {
  const list = element("dl");
  for (const [term, value] of rows) {
    if (value !== null && value !== undefined && value !== "")
      list.append(element("dt", {}, term), element("dd", {}, value));
  }
  return list;
}

// Lines of text of which some are marked, and some select something.
function lines(text, { isHere = () => false, target = () => null, select = null, first = 1, className = "" } = {}) {
  const pre = element("pre", { class: className });
  text.split("\n").forEach((line, index) => {
    const id = target(index);
    const attributes = {
      class: `${isHere(index) ? "here" : ""} ${id === null ? "" : "link"}`,
      "data-line": index + first,
    };
    if (id !== null)
      Object.assign(attributes, {
        onclick: () => select(id),
        tabindex: 0,
        onkeydown: (event) => {
          if (event.key === "Enter") select(id);
        },
      });
    pre.append(element("span", attributes, line || " "));
  });
  return pre;
}

const named = (record, id) => (record?.kind === "kernel" ? `@${record.name}` : `%${record?.name ?? id}`);

function valueButton(id, records, select) {
  const record = records.get(id);
  return element("button", { type: "button", class: "value", onclick: () => select(id) }, named(record, id));
}

function sourceSection(record) {
  const match = /^(.*?):(\d+)/.exec(record.place ?? "");
  const quoted = match && DATA.sources[match[1]];
  if (!record.place) return [];
  const parts = [element("h3", {}, "Source"), element("div", {}, element("code", {}, record.place))];
  if (quoted) {
    const line = Number(match[2]);
    const numbers = Object.keys(quoted)
      .map(Number)
      .filter((each) => Math.abs(each - line) <= 3)
      .sort((a, b) => a - b);
    parts.push(lines(numbers.map((each) => quoted[each]).join("\n"), { isHere: (index) => numbers[index] === line }));
  }
  return parts;
}

function kernelSection(kernel, record, select) {
  const parts = [];
  const byLine = new Map(Object.entries(kernel.lines ?? {}).map(([id, line]) => [line, id]));
  if (kernel.reason) parts.push(element("p", {}, `Runs as host calls: ${kernel.reason}`));
  if (kernel.triton) {
    const here = kernel.lines[record.id];
    parts.push(element("h3", {}, `Triton of @${kernel.name}`));
    if (record !== kernel && here === undefined)
      parts.push(element("p", { class: "faint" }, "No separate line: it is part of the expression that uses it."));
    parts.push(
      lines(kernel.triton, { isHere: (index) => index === here, target: (index) => byLine.get(index) ?? null, select }),
    );
    parts.push(element("h3", {}, "Schedule"), lines(kernel.schedule));
  }
  return parts;
}

function decisionSection(graph, ids) {
  const decisions = (graph.stage.fusion ?? [])
    .flatMap((fusion) => fusion.decisions)
    .filter((each) => ids.has(each.producer) || ids.has(each.consumer));
  if (!decisions.length) return [];
  const items = decisions.map((each) =>
    element(
      "li",
      {},
      element("code", {}, `%${each.producer} → %${each.consumer}`),
      ` ${each.reason}${each.rule ? ` (rule ${each.rule})` : ""}`,
    ),
  );
  return [element("h3", {}, "Not merged"), element("ul", {}, ...items)];
}

function bytesText({ bytes, loaded }) {
  if (bytes === undefined) return null;
  return `${formatBytes(bytes)} distinct${loaded === undefined ? "" : `, ${formatBytes(loaded)} loaded and stored`}`;
}

// Whether a record has a time: an estimate that is not finite is null.
const hasTime = (record) => typeof record.us === "number";

// Fill the panel with what is known of a node; `select` is called with the id of another.
function showNode(panel, graph, id, title, select) {
  const record = graph.records.get(id);
  panel.replaceChildren();
  if (!record) {
    panel.append(...overview(graph, title, select));
    return;
  }
  const kernel =
    record.kind === "kernel"
      ? record
      : graph.records.get(record.parent)?.kind === "kernel"
        ? graph.records.get(record.parent)
        : null;
  const cost = record.bytes !== undefined ? record : (kernel ?? {});
  const timed = hasTime(record) ? record : (kernel ?? {});
  const error = errorOf(graph, record);
  panel.append(
    element("h2", {}, named(record, id)),
    definitions([
      ["operation", record.op],
      ["type", record.type],
      ["kernel", kernel && kernel !== record ? `@${kernel.name}` : null],
      ["passes", record.made_by?.join(", ")],
      [cost === record ? "bytes" : "kernel's bytes", bytesText(cost)],
      ["flops", cost.flops ? formatCount(cost.flops) : null],
      DATA.times
        ? ["measured time", hasTime(timed) ? formatTime(timed.us) : null]
        : ["estimate", hasTime(cost) ? `${formatTime(cost.us)}, limited by ${cost.limit}` : null],
      ["programs", cost.programs],
      ["relative error", error === undefined ? null : Number.isFinite(error) ? error.toExponential(1) : "not finite"],
    ]),
    element("h3", {}, "IR"),
    lines(record.text, { className: "wrap" }),
    ...sourceSection(record),
  );
  const readers = [...graph.records.values()].filter((each) => each.reads.some(([source]) => source === id));
  for (const [name, ids] of [
    ["Reads", record.reads.map(([source]) => source)],
    ["Read by", readers.map((each) => each.id)],
  ]) {
    if (!ids.length) continue;
    const buttons = ids
      .slice(0, 30)
      .flatMap((each, index) => [index ? " " : "", valueButton(each, graph.records, select)]);
    panel.append(element("h3", {}, name), element("div", {}, ...buttons));
  }
  if (kernel) panel.append(...kernelSection(kernel, record, select));
  const group = graph.merged?.groups.get(id);
  const ids = new Set(
    group === undefined ? [id] : [...graph.merged.groups].filter(([, each]) => each === group).map(([each]) => each),
  );
  panel.append(...decisionSection(graph, ids));
}

// What is shown where nothing is selected: the figures, and the kernels and calls that take longest.
function overview(graph, title, select) {
  const slowest = [...graph.records.values()]
    .filter(hasTime)
    .sort((a, b) => b.us - a.us)
    .slice(0, 12);
  const rows = slowest.map((record) => {
    const figures = [formatTime(record.us), ...(record.bytes === undefined ? [] : [formatBytes(record.bytes)])];
    return element("li", {}, valueButton(record.id, graph.records, select), ` ${[record.op, ...figures].join(", ")}`);
  });
  const parts = [
    element("h2", {}, title),
    element("p", {}, figuresOf(graph)),
    element("p", { class: "faint" }, "Click an operation or a kernel. Drag to move, scroll or pinch to zoom."),
  ];
  const latest = graph.merged?.latest;
  if (latest) {
    const buttons = latest.members.flatMap((id, index) => [index ? " " : "", valueButton(id, graph.records, select)]);
    parts.push(element("h3", {}, `Latest merge, by ${latest.by}`), element("div", {}, ...buttons));
  }
  const heading = DATA.times ? "Longest measured" : "Longest by estimate";
  if (rows.length) parts.push(element("h3", {}, heading), element("ul", {}, ...rows));
  return parts;
}

// The graph of one position of the slider: a stage, or a stage with the first merges of fusion.
"use strict";

// The positions of a pipeline's slider: its stages that change the program, and after the last stage before `fuse` each
// merge in the order made.
function positionsOf(pipeline) {
  const positions = [];
  pipeline.stages.forEach((stage, index) => {
    if (index > 0 && !stage.changed && !stage.fusion) return;
    if (stage.changed) positions.push({ stage: index, merges: null, text: stage.name });
    const total = (stage.fusion ?? []).reduce((sum, fusion) => sum + fusion.merges.length, 0);
    for (let merges = 0; stage.fusion && merges <= total; merges++) {
      const before = pipeline.stages[index + 1]?.name ?? "fuse";
      positions.push({ stage: index, merges, text: `${before}: ${merges} of ${counted(total, "merge")}` });
    }
  });
  return positions;
}

// Which kernel each value is computed in after some merges: values by id to the key of a group, the last one where
// several compute it. `bytes` are those that the kernels read and write.
function mergedGroups(fusions, merges) {
  const groups = new Map();
  const kernels = new Map(); // by key, the members and bytes of a group
  let left = merges;
  let latest = null;
  for (const fusion of fusions) {
    for (const [id, bytes] of fusion.seeds) {
      groups.set(id, id);
      kernels.set(id, { members: [id], bytes });
    }
    for (const merge of fusion.merges.slice(0, Math.max(0, left))) {
      const key = merge.members.at(-1);
      const members = new Set(merge.members);
      for (const part of new Set(merge.members.map((id) => groups.get(id)))) {
        if (kernels.get(part)?.members.every((id) => members.has(id))) kernels.delete(part);
      }
      for (const id of merge.members) groups.set(id, key);
      kernels.set(key, { members: merge.members, bytes: merge.bytes });
      latest = { ...merge, key };
    }
    left -= fusion.merges.length;
  }
  const bytes = [...kernels.values()].reduce((sum, each) => sum + each.bytes, 0);
  return { groups, kernels: kernels.size, bytes, latest };
}

const DETAILS = { view: "views", constant: "weights", size: "weights" }; // kinds that are shown on request

// The nodes and edges at a position. What is not shown is read through: its readers read what it reads.
function graphAt(pipeline, position, shown) {
  const stage = pipeline.stages[position.stage];
  const records = stage.nodes.map((index) => pipeline.records[index]);
  const byId = new Map(records.map((record) => [record.id, record]));
  const isShown = (record) => !(record.kind in DETAILS) || shown[DETAILS[record.kind]];
  const fusions = position.merges === null ? null : stage.fusion;
  const merged = fusions && mergedGroups(fusions, position.merges);
  const final = fusions && mergedGroups(fusions, Infinity);
  const nodes = [],
    edges = [],
    nodeById = new Map();
  const add = (node) => {
    nodes.push(node);
    nodeById.set(node.id, node);
  };
  for (const record of records) {
    if (!isShown(record)) continue;
    let parent = record.parent ?? null;
    if (final?.groups.has(record.id)) {
      const container = `kernel ${final.groups.get(record.id)}`;
      if (!nodeById.has(container)) add({ id: container, record: null, parent, isVirtual: true });
      parent = container;
    }
    add({ id: record.id, record, parent, group: merged?.groups.get(record.id) ?? null });
  }
  const holding = new Set(nodes.map((node) => node.parent));
  for (const node of nodes) node.isContainer = holding.has(node.id);
  const sources = sourcesOf(byId, isShown);
  const known = new Map();
  for (const node of nodes) {
    for (const [id, bytes] of node.record ? sources(node.record) : []) {
      if (!nodeById.has(id) || id === node.id) continue;
      const key = JSON.stringify([id, node.id]);
      if (known.has(key)) {
        known.get(key).bytes = Math.max(known.get(key).bytes, bytes);
        continue;
      }
      const from = nodeById.get(id);
      const isInside = merged
        ? from.group !== null && from.group === node.group
        : node.parent !== null && from.parent === node.parent && byId.get(node.parent)?.kind === "kernel";
      const edge = { from: id, to: node.id, bytes, isInside };
      known.set(key, edge);
      edges.push(edge);
    }
  }
  return { nodes: inNesting(nodes), edges, nodeById, merged, stage, records: byId, position };
}

// What a record reads among what is shown, with bytes; through what is not shown, whose own bytes count.
function sourcesOf(byId, isShown) {
  const cache = new Map();
  return (record) => {
    const found = new Map(),
      waiting = record.reads.map(([id, bytes]) => [id, bytes]);
    const seen = new Set();
    while (waiting.length) {
      const [id, bytes] = waiting.pop();
      const source = byId.get(id);
      if (!source || seen.has(id)) continue;
      seen.add(id);
      if (isShown(source)) found.set(id, bytes);
      else if (cache.has(id)) for (const [other] of cache.get(id)) found.set(other, bytes);
      else for (const [other] of source.reads) waiting.push([other, bytes]);
    }
    return found;
  };
}

// Each node after its parent, siblings in program order.
function inNesting(nodes) {
  const ids = new Set(nodes.map((node) => node.id));
  const children = new Map();
  for (const node of nodes) {
    if (node.parent !== null && !ids.has(node.parent)) node.parent = null;
    if (!children.has(node.parent)) children.set(node.parent, []);
    children.get(node.parent).push(node);
  }
  const ordered = [],
    waiting = [...(children.get(null) ?? [])].reverse();
  while (waiting.length) {
    const node = waiting.pop();
    ordered.push(node);
    waiting.push(...[...(children.get(node.id) ?? [])].reverse());
  }
  return ordered;
}

// The kernels at a position, by the names of what they compute, as a key that two pipelines can have in common.
function kernelsOf(graph) {
  const members = new Map();
  for (const node of graph.nodes) {
    if (node.isContainer || node.record === null) continue;
    const kernel = graph.merged ? node.group : graph.records.get(node.parent)?.kind === "kernel" ? node.parent : null;
    if (kernel === null || node.record.kind in DETAILS) continue;
    if (!members.has(kernel)) members.set(kernel, []);
    members.get(kernel).push(node.id);
  }
  return new Map([...members].map(([kernel, ids]) => [kernel, JSON.stringify(ids.sort())]));
}

// What differs from the graph of another pipeline: ids of kernels that compute other sets of values, and of operations
// that the other does not have.
function differences(graph, other) {
  if (!other) return { kernels: new Set(), nodes: new Set() };
  const theirs = new Set(kernelsOf(other).values());
  const kernels = new Set([...kernelsOf(graph)].filter(([, key]) => !theirs.has(key)).map(([kernel]) => kernel));
  const hasKernels = theirs.size > 0 && kernelsOf(graph).size > 0;
  const nodes = graph.nodes.filter(
    (node) => node.record && node.record.kind !== "kernel" && !other.records.has(node.id),
  );
  return { kernels: hasKernels ? kernels : new Set(), nodes: new Set(nodes.map((node) => node.id)) };
}

// The error of a value against f64, or undefined; JSON has null for one that is not finite.
function errorOf(graph, record) {
  const error = graph.stage.errors?.[record.id];
  return error === null ? Infinity : error;
}

// The figures of a position in words.
function figuresOf(graph) {
  if (graph.merged)
    return `${counted(graph.merged.kernels, "kernel")}, ${formatBytes(graph.merged.bytes)} read and written by them`;
  let kernels = 0,
    calls = 0,
    bytes = 0,
    us = 0;
  for (const record of graph.records.values()) {
    if (record.bytes === undefined) continue;
    if (record.kind === "kernel" && record.triton) kernels += record.launches ?? 1;
    else calls += record.launches ?? 1;
    bytes += record.bytes;
    us += record.us ?? 0;
  }
  const parts = kernels
    ? [counted(kernels, "launch", "launches"), counted(calls, "call")]
    : [counted(calls, "operation")];
  const time = DATA.times ? [] : [`${formatTime(us)} estimated`]; // measured ones are not of all records
  return [...parts, formatBytes(bytes), ...time].join(", ");
}

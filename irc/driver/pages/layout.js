// Layout of a graph, in a worker: dagre lays out parts of bounded size, which are put one below another in columns.
//
// A message has `nodes` ({id, width, height, parent}), each after its parent, `edges` ({from, to}) and the `aspect` of
// the drawing. The answer has a box ({x, y, width, height}) for each node, the corner being its upper left, and for
// each edge the points of its route, which may be none.
"use strict";

const PADDING = 10,
  HEADER = 18; // inside of a container
const SHORTEST = 14,
  LONGEST = 48; // units of a part
const GAP = 44,
  GUTTER = 64; // between parts, between columns

self.onmessage = (event) => {
  const { id, nodes, edges, aspect } = event.data;
  self.postMessage({ id, ...layout(nodes, edges, aspect) });
};

function layout(nodes, edges, aspect) {
  const parents = new Map(nodes.map((node) => [node.id, node.parent ?? null]));
  const children = new Map([[null, []]]);
  for (const node of nodes) {
    const siblings = children.get(node.parent ?? null);
    if (siblings) siblings.push(node);
    else children.set(node.parent, [node]);
  }
  const inner = edgesByContainer(edges, parents);
  const boxes = new Map(),
    routes = new Map();
  // Containers stand before what is inside of them: in reverse order the size of each is known where it is needed.
  for (const node of [...nodes].reverse()) {
    if (!children.has(node.id)) continue;
    const part = layoutPart(children.get(node.id), inner.get(node.id) ?? []);
    Object.assign(node, { width: part.width + 2 * PADDING, height: part.height + PADDING + HEADER, part });
  }
  const top = layoutTop(children.get(null), inner.get(null) ?? [], aspect);
  const place = (part, x, y) => {
    for (const [id, box] of part.boxes) boxes.set(id, { ...box, x: box.x + x, y: box.y + y });
    for (const [edge, points] of part.routes)
      routes.set(
        edge,
        points.map((p) => ({ x: p.x + x, y: p.y + y })),
      );
  };
  place(top, 0, 0);
  for (const node of nodes) {
    if (!node.part) continue;
    const box = boxes.get(node.id);
    place(node.part, box.x + PADDING, box.y + HEADER);
  }
  return {
    boxes: [...boxes],
    routes: edges.map((edge) => routes.get(edge.number) ?? null),
    width: top.width,
    height: top.height,
  };
}

// The edges between units of each container: the nodes directly in it that hold the ends of an edge.
function edgesByContainer(edges, parents) {
  const found = new Map();
  edges.forEach((edge, number) => {
    edge.number = number;
    const above = new Map(); // containers around the source, and the unit of each that holds it
    for (let unit = edge.from; unit !== null; unit = parents.get(unit)) above.set(parents.get(unit), unit);
    for (let unit = edge.to; unit !== null; unit = parents.get(unit)) {
      const container = parents.get(unit);
      if (!above.has(container)) continue;
      if (above.get(container) !== unit) {
        if (!found.has(container)) found.set(container, []);
        found.get(container).push({ from: above.get(container), to: unit, number });
      }
      break;
    }
  });
  return found;
}

// Boxes and routes of a few units, by dagre.
function layoutPart(units, edges) {
  const graph = new dagre.graphlib.Graph({ multigraph: false });
  graph.setGraph({ rankdir: "TB", ranksep: 26, nodesep: 16, edgesep: 10, ranker: "tight-tree" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const unit of units) graph.setNode(unit.id, { width: unit.width, height: unit.height });
  for (const edge of edges) graph.setEdge(edge.from, edge.to);
  dagre.layout(graph);
  const boxes = units.map((unit) => {
    const { x, y, width, height } = graph.node(unit.id);
    return [unit.id, { x: x - width / 2, y: y - height / 2, width, height }];
  });
  const routes = edges.map((edge) => [edge.number, graph.edge(edge.from, edge.to).points]);
  return { boxes, routes, width: graph.graph().width, height: graph.graph().height };
}

// The units of a whole graph: parts of it, one below another in columns, of about this aspect.
function layoutTop(units, edges, aspect) {
  const order = inOrder(units, edges);
  const parts = divided(order, edges).map((some) => {
    const inside = new Set(some.map((unit) => unit.id));
    return layoutPart(
      some,
      edges.filter((edge) => inside.has(edge.from) && inside.has(edge.to)),
    );
  });
  const columns = inColumns(parts, aspect);
  const boxes = [],
    routes = [],
    where = new Map();
  let x = 0,
    height = 0;
  columns.forEach((column, index) => {
    alignParts(column, edges);
    const left = Math.min(...column.map((part) => part.left));
    const right = Math.max(...column.map((part) => part.left + part.width));
    let y = 0;
    for (const part of column) {
      for (const [id, box] of part.boxes) {
        const placed = { ...box, x: box.x + x + part.left - left, y: box.y + y };
        boxes.push([id, placed]);
        where.set(id, { box: placed, column: index, right: x + right - left });
      }
      for (const [number, points] of part.routes) {
        routes.push([number, points.map((p) => ({ x: p.x + x + part.left - left, y: p.y + y }))]);
      }
      y += part.height + GAP;
    }
    height = Math.max(height, y - GAP);
    x += right - left + GUTTER;
  });
  const routed = new Set(routes.map(([number]) => number));
  for (const edge of edges) {
    if (!routed.has(edge.number)) routes.push([edge.number, betweenParts(where.get(edge.from), where.get(edge.to))]);
  }
  return { boxes, routes, width: Math.max(0, x - GUTTER), height };
}

// Program order, but what reads nothing (inputs, weights) stands before its first reader.
function inOrder(units, edges) {
  const readers = new Map(),
    reading = new Set();
  for (const edge of edges) {
    reading.add(edge.to);
    readers.set(edge.from, [...(readers.get(edge.from) ?? []), edge.to]);
  }
  const position = new Map(units.map((unit, index) => [unit.id, index]));
  const key = (unit, index) =>
    reading.has(unit.id) ? index : Math.min(...(readers.get(unit.id) ?? [unit.id]).map((id) => position.get(id))) - 0.5;
  const keys = new Map(units.map((unit, index) => [unit.id, key(unit, index)]));
  return [...units].sort((one, other) => keys.get(one.id) - keys.get(other.id));
}

// Parts of consecutive units, divided where few values are live.
function divided(order, edges) {
  const position = new Map(order.map((unit, index) => [unit.id, index]));
  const last = new Array(order.length).fill(0);
  for (const edge of edges) {
    const from = position.get(edge.from);
    last[from] = Math.max(last[from], position.get(edge.to));
  }
  const change = new Array(order.length + 2).fill(0);
  last.forEach((end, start) => {
    if (end > start) {
      change[start + 1] += 1;
      change[end + 1] -= 1;
    }
  });
  const live = []; // values that are computed before a unit and read there or later
  change.reduce((sum, each, index) => (live[index] = sum + each), 0);
  if (order.length <= LONGEST) return [order];
  const parts = [];
  let start = 0;
  while (order.length - start > 2 * SHORTEST) {
    let best = start + SHORTEST;
    const stop = Math.min(start + LONGEST, order.length - SHORTEST);
    for (let end = best; end <= stop && live[best] > 1; end++) if (live[end] < live[best]) best = end;
    parts.push(order.slice(start, best));
    start = best;
  }
  return [...parts, order.slice(start)];
}

// Parts in columns, as even as their order allows, so that the whole has about this aspect.
function inColumns(parts, aspect) {
  const total = parts.reduce((sum, part) => sum + part.height + GAP, 0);
  const width = parts.reduce((sum, part) => sum + part.width, 0) / Math.max(1, parts.length) + GUTTER;
  const count = Math.max(1, Math.min(parts.length, Math.round(Math.sqrt((total * aspect) / width))));
  let low = Math.max(0, ...parts.map((part) => part.height)),
    high = total;
  while (high - low > 1) {
    // the smallest height with which so many columns suffice
    const middle = (low + high) / 2;
    if (filled(parts, middle).length <= count) high = middle;
    else low = middle;
  }
  return filled(parts, high);
}

function filled(parts, limit) {
  const columns = [[]];
  let height = 0;
  for (const part of parts) {
    if (columns.at(-1).length && height + part.height > limit) {
      columns.push([]);
      height = 0;
    }
    columns.at(-1).push(part);
    height += part.height + GAP;
  }
  return columns;
}

// Give each part of a column a left edge so that the first value that enters it comes straight from above.
function alignParts(column, edges) {
  const middle = (box) => box.x + box.width / 2;
  let above = null;
  for (const part of column) {
    part.left = 0;
    const inside = new Map(part.boxes);
    const edge = above && edges.find((each) => above.boxes.has(each.from) && inside.has(each.to));
    if (edge) part.left = above.left + middle(above.boxes.get(edge.from)) - middle(inside.get(edge.to));
    else if (above) part.left = above.left + (above.width - part.width) / 2;
    above = { left: part.left, width: part.width, boxes: inside };
  }
}

// A route from one part to another: down, or to the top of a later column through the space beside the first.
function betweenParts(from, to) {
  const start = { x: from.box.x + from.box.width / 2, y: from.box.y + from.box.height };
  const end = { x: to.box.x + to.box.width / 2, y: to.box.y };
  if (from.column === to.column) return [start, end];
  const beside = from.right + GUTTER / 2;
  return [
    start,
    { x: start.x, y: start.y + 14 },
    { x: beside, y: start.y + 22 },
    { x: beside, y: end.y - 22 },
    { x: end.x, y: end.y - 14 },
    end,
  ];
}

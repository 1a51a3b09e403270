// What the user does: pointers, the search, and the controls of the page. The end of this file starts it.
"use strict";

let query = ""; // what is searched for

function followPointers(view) {
  const pointers = new Map();
  let moved = 0;
  const at = (event) => {
    const box = view.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  view.canvas.addEventListener("pointerdown", (event) => {
    view.canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    moved = 0;
  });
  view.canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = at(event),
      others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
    moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    if (others.length) {
      const distance = (point) => Math.max(1, Math.hypot(point.x - others[0].x, point.y - others[0].y));
      view.zoom(distance(now) / distance(before), (now.x + others[0].x) / 2, (now.y + others[0].y) / 2);
    } else {
      view.camera.x += now.x - before.x;
      view.camera.y += now.y - before.y;
      view.isWhole = false;
      view.update();
    }
    pointers.set(event.pointerId, now);
  });
  const end = (event) => {
    if (pointers.delete(event.pointerId) && event.type === "pointerup" && moved < 5) {
      const { x, y } = at(event);
      view.select(view.nodeAt(x, y)?.id ?? null, false);
    }
  };
  view.canvas.addEventListener("pointerup", end);
  view.canvas.addEventListener("pointercancel", end);
  view.canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = at(event);
      view.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), x, y);
    },
    { passive: false },
  );
}

// Mark what a search finds: values whose name, operations whose name, or places that contain the text.
function search() {
  const text = query.toLowerCase().replace(/^[%@]/, "");
  let count = 0;
  for (const view of views) {
    const matching =
      text && view.graph
        ? [...view.graph.records.values()].filter((record) =>
            [record.name, record.op, record.place ?? ""].some((each) => each.toLowerCase().includes(text)),
          )
        : [];
    view.found = new Set(matching.map((record) => record.id));
    view.matches = matching.map((record) => record.id);
    count += matching.length;
    view.update();
  }
  document.getElementById("found").textContent = text ? `${count} found` : "";
}

// Show weights or views, which are hidden at first.
function reveal(detail) {
  shown[detail] = true;
  document.getElementById(detail).checked = true;
  for (const view of views) view.goTo(view.number);
}

function compare() {
  if (views.length < 2) return;
  views.forEach((view, index) => {
    const other = views[1 - index];
    if (!view.graph || !other.graph) return;
    view.differs = differences(view.graph, other.graph);
    const { kernels, nodes } = view.differs;
    view.difference.textContent =
      kernels.size + nodes.size === 0
        ? "equal"
        : `differs: ${counted(kernels.size, "kernel")}, ${counted(nodes.size, "operation")}`;
    view.update();
  });
}

function setUp() {
  const byId = (id) => document.getElementById(id);
  byId("model").textContent = DATA.model;
  const sizes = Object.entries(DATA.sizes)
    .map(([name, size]) => `${name}=${size}`)
    .join(", ");
  const times = DATA.times ?? `estimates for ${DATA.device}, not measured`;
  byId("remark").textContent = `Figures${sizes ? ` at ${sizes}` : ""}; times are ${times}. irc ${DATA.version}`;
  for (const [value, text] of Object.entries(COLORINGS)) byId("coloring").append(element("option", { value }, text));
  byId("coloring").addEventListener("change", (event) => {
    coloring = event.target.value;
    for (const view of views) {
      view.setColors();
      view.update();
    }
  });
  for (const detail of Object.keys(shown))
    byId(detail).addEventListener("change", (event) => {
      shown[detail] = event.target.checked;
      for (const view of views) view.goTo(view.number);
    });
  let next = 0;
  byId("search").addEventListener("input", (event) => {
    query = event.target.value;
    next = 0;
    search();
  });
  byId("search").addEventListener("keydown", (event) => {
    const view = views.find((each) => each.matches?.length);
    if (event.key === "Enter" && view) view.select(view.matches[next++ % view.matches.length]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target.tagName !== "INPUT") {
      event.preventDefault();
      byId("search").focus();
    }
  });
  byId("fit").addEventListener("click", () => {
    for (const view of views) view.fit();
  });
  byId("svg").addEventListener("click", () =>
    download(`${(current ?? views[0]).pipeline.name}.svg`, "image/svg+xml", (current ?? views[0]).svg()),
  );
  themes.push(() => {
    for (const view of views) {
      view.setColors();
      view.update();
    }
  });
}

const views = [];
let current = null;
setUp();
DATA.pipelines.forEach((pipeline, index) => views.push(new View(pipeline, index)));
current = views[0];

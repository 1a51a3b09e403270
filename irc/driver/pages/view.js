// A pipeline in the page of `irc view`: a slider through its stages, and a drawing of the graph.
"use strict";

const shown = { views: false, weights: false }; // what is hidden at first

// Layouts are made in a worker, one at a time; the answer is for the request of this number.
const worker = new Worker(
  URL.createObjectURL(
    new Blob([document.getElementById("dagre").textContent, "\n", document.getElementById("layout").textContent], {
      type: "text/javascript",
    }),
  ),
);
const answers = new Map();
worker.onmessage = ({ data }) => {
  answers.get(data.id)(data);
  answers.delete(data.id);
};
worker.onerror = (event) => {
  document.documentElement.dataset.state = "failed";
  throw new Error(event.message);
};
let requests = 0;
function layOut(graph, aspect) {
  sizeNodes(graph.nodes);
  const nodes = graph.nodes.map(({ id, width, height, parent }) => ({ id, width, height, parent }));
  const id = ++requests;
  worker.postMessage({ id, nodes, edges: graph.edges.map(({ from, to }) => ({ from, to })), aspect });
  return new Promise((resolve) => answers.set(id, resolve));
}

class View {
  constructor(pipeline, index) {
    this.pipeline = pipeline;
    this.index = index;
    this.positions = positionsOf(pipeline);
    this.layouts = new Map();
    this.selected = null;
    this.found = new Set();
    this.differs = { kernels: new Set(), nodes: new Set() };
    this.build();
    this.goTo(this.positions.length - 1);
  }

  build() {
    this.canvas = element("canvas", { role: "img", "aria-label": `Graph of ${this.pipeline.name}` });
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: this.positions.length - 1,
      step: 1,
      "aria-label": `Stage of ${this.pipeline.name}`,
      oninput: () => this.goTo(Number(this.slider.value)),
    });
    this.stageText = element("span", { class: "stage" });
    this.figures = element("span", { class: "faint figures" });
    this.difference = element("span", { class: "faint difference" });
    this.legend = element("div", { class: "legend" });
    const row = element(
      "div",
      { class: "row" },
      element("code", { title: this.pipeline.text }, this.pipeline.name),
      this.stageText,
      this.figures,
      this.difference,
    );
    this.element = element(
      "section",
      { class: "graph" },
      element("div", { class: "bar" }, row, this.slider),
      element("div", { class: "drawing" }, this.canvas, this.legend),
    );
    document.getElementById("graphs").append(this.element);
    this.camera = { x: 0, y: 0, scale: 1 };
    followPointers(this);
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  // Show a position of the slider; the latest call counts.
  async goTo(number) {
    this.number = number;
    this.slider.value = number;
    document.documentElement.dataset.state = "busy";
    const position = this.positions[number];
    const graph = graphAt(this.pipeline, position, shown);
    this.stageText.textContent = `${position.text} (${number + 1} of ${this.positions.length})`;
    this.slider.setAttribute("aria-valuetext", position.text);
    const key = JSON.stringify([position.stage, position.merges === null, shown]);
    if (!this.layouts.has(key)) this.layouts.set(key, layOut(graph, this.aspect()));
    const layout = await this.layouts.get(key);
    if (this.number !== number) return;
    const isOther = this.layout !== layout;
    this.apply(graph, layout);
    if (isOther) this.keepPlace();
    compare();
    if (this.selected !== null || current === this) this.select(this.selected, false);
    search();
    this.update();
    if (views.every((view) => view.graph)) document.documentElement.dataset.state = "ready";
  }

  aspect() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return Math.max(0.4, Math.min(4, width / Math.max(1, height)));
  }

  apply(graph, layout) {
    const boxes = new Map(layout.boxes);
    for (const node of graph.nodes) node.box = boxes.get(node.id);
    graph.edges.forEach((edge, index) => {
      const from = boxes.get(edge.from),
        to = boxes.get(edge.to);
      if (!from || !to) return;
      edge.path = pathOf(edge, from, to, layout.routes[index]);
      const xs = [],
        ys = [];
      for (const [, ...numbers] of edge.path) numbers.forEach((each, place) => (place % 2 ? ys : xs).push(each));
      const [x, y] = [Math.min(...xs), Math.min(...ys)];
      edge.extent = { x, y, width: Math.max(...xs) - x + 1, height: Math.max(...ys) - y + 1 };
    });
    markFarEdges(graph.edges);
    graph.widthOf = edgeWidths(graph.edges);
    this.earlier = this.graph;
    [this.graph, this.layout] = [graph, layout];
    this.figures.textContent = figuresOf(graph);
    this.setColors();
  }

  // After another layout: keep what is selected, or what was in the middle, where it was; at first show all.
  keepPlace() {
    const before = this.earlier,
      width = this.canvas.clientWidth,
      height = this.canvas.clientHeight;
    if (!before || this.isWhole) {
      this.fit();
      return;
    }
    const at = {
      x: (width / 2 - this.camera.x) / this.camera.scale,
      y: (height / 2 - this.camera.y) / this.camera.scale,
    };
    const distance = (node) =>
      Math.hypot(node.box.x + node.box.width / 2 - at.x, node.box.y + node.box.height / 2 - at.y);
    const candidates = before.nodes.filter((node) => node.box && this.graph.nodeById.get(node.id)?.box);
    const anchor =
      candidates.find((node) => node.id === this.selected) ??
      candidates.reduce((best, node) => (!best || distance(node) < distance(best) ? node : best), null);
    if (!anchor) {
      this.fit();
      return;
    }
    const now = this.graph.nodeById.get(anchor.id).box;
    this.camera.x += (anchor.box.x - now.x) * this.camera.scale;
    this.camera.y += (anchor.box.y - now.y) * this.camera.scale;
  }

  fit() {
    const width = this.canvas.clientWidth,
      height = this.canvas.clientHeight;
    if (!this.layout || !width) return;
    const scale = Math.min(
      1.4,
      (width - 40) / Math.max(1, this.layout.width),
      (height - 70) / Math.max(1, this.layout.height),
    );
    this.camera = {
      scale,
      x: (width - this.layout.width * scale) / 2,
      y: Math.max(16, (height - 34 - this.layout.height * scale) / 2),
    };
    this.isWhole = true;
    this.update();
  }

  zoom(factor, x, y) {
    const scale = Math.max(0.01, Math.min(4, this.camera.scale * factor));
    const ratio = scale / this.camera.scale;
    this.camera = { scale, x: x - (x - this.camera.x) * ratio, y: y - (y - this.camera.y) * ratio };
    this.isWhole = false;
    this.update();
  }

  // Move so that a node is in the middle, at a scale at which it can be read.
  center(id) {
    const box = this.graph?.nodeById.get(id)?.box;
    if (!box) return;
    const scale = Math.max(this.camera.scale, 0.8);
    this.camera = {
      scale,
      x: this.canvas.clientWidth / 2 - (box.x + box.width / 2) * scale,
      y: this.canvas.clientHeight / 2 - (box.y + box.height / 2) * scale,
    };
    this.isWhole = false;
    this.update();
  }

  nodeAt(x, y) {
    const [left, top] = [(x - this.camera.x) / this.camera.scale, (y - this.camera.y) / this.camera.scale];
    const nodes =
      this.graph?.nodes.filter(
        (node) => node.box && !node.isVirtual && overlaps({ x: left, y: top, width: 0.01, height: 0.01 }, node.box),
      ) ?? [];
    return nodes.at(-1) ?? null; // what is inside stands after what is around it
  }

  select(id, moves = true) {
    current = this;
    this.selected = id;
    const record = this.graph?.records.get(id);
    if (record && !this.graph.nodeById.has(id) && record.kind in DETAILS) {
      reveal(DETAILS[record.kind]);
      return;
    }
    if (this.graph)
      showNode(
        document.getElementById("panel"),
        this.graph,
        id,
        `${this.pipeline.name}: ${this.positions[this.number].text}`,
        (other) => this.select(other),
      );
    if (moves && id !== null) this.center(id);
    for (const view of views)
      if (view !== this) {
        view.selected = view.graph?.records.has(id) ? id : null;
        view.update();
      }
    this.update();
  }

  setColors() {
    const names = [
      "text",
      "faint",
      "back",
      "line",
      "accent",
      "mark",
      "edge",
      "kernel",
      "kernel-line",
      "member",
      "library",
      "host",
      "view",
      "constant",
      "input",
      "output",
      "size",
      "control",
      "argument",
      "differs",
    ];
    this.colors = Object.fromEntries(names.map((name) => [name, color(name)]));
    this.heat = heatOf(this.graph, coloring);
    drawLegend(this);
  }

  fillOf(node) {
    if (coloring === "kind")
      return node.group && node.record.kind !== "library"
        ? this.colors.member
        : (this.colors[node.record.kind] ?? this.colors.host);
    const heat = this.heat.get(node.id);
    return heat === undefined ? (node.isContainer ? this.colors.back : this.colors.view) : heatColor(heat);
  }

  inkOf(node) {
    const heat = coloring === "kind" ? undefined : this.heat.get(node.id);
    return heat === undefined ? this.colors.text : heat > 0.55 ? "#ffffff" : "#1c1c1e";
  }

  resize() {
    const ratio = devicePixelRatio || 1,
      { width, height } = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (this.isWhole) this.fit();
    this.draw();
  }

  // Draw with the next frame, once.
  update() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.draw();
    });
  }

  style() {
    return {
      colors: this.colors,
      selected: this.selected,
      found: this.found,
      differs: this.differs,
      fillOf: (node) => this.fillOf(node),
      inkOf: (node) => this.inkOf(node),
    };
  }

  draw() {
    if (!this.graph) return;
    const context = this.canvas.getContext("2d"),
      ratio = devicePixelRatio || 1;
    const { x, y, scale } = this.camera;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    const sight = {
      x: -x / scale,
      y: -y / scale,
      width: this.canvas.clientWidth / scale,
      height: this.canvas.clientHeight / scale,
    };
    draw(new CanvasSurface(context), this.graph, sight, scale, this.style());
  }

  svg() {
    const surface = new SvgSurface(),
      box = { x: -20, y: -20, width: Math.ceil(this.layout.width) + 40, height: Math.ceil(this.layout.height) + 40 };
    draw(surface, this.graph, box, 1, this.style());
    return surface.document(box, this.colors.back);
  }
}

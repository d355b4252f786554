"use strict";
// The tools that change the labels of the open image: select, brush, lasso and eraser. Pointers become steps of `changes`.

/** The tools by name, with their keys. */
const TOOLS = { select: "v", brush: "b", lasso: "a", eraser: "e" };

/** The radius of a brush, and its limits, as shares of the longer side of an image. */
const RADIUS = 0.015;
const [SMALLEST, LARGEST] = [0.0001, 0.25];

/** Pixels of the screen: what a hand trembles, and how near the first point of a lasso a click closes it. */
const [TREMBLE, CLOSE] = [4, 12];

const tools = {
  tool: "select",
  label: null, // the id that brush and lasso draw
  share: RADIUS,
  points: [], // [y, x] of the stroke that is being drawn
  before: null, // the label ids before it
  erases: false, // whether it is an eraser's
  pressed: null, // [x, y] on the screen where the pointer went down
  dragged: false, // whether it moved since
  alone: false, // whether it went down for the first point of a stroke
  queued: false, // whether the picture is about to be drawn again

  /** Why the labels of the open image cannot be changed; "" if they can. */
  reason() {
    const { record } = viewer;
    if (!record.key) return "";
    if (viewer.showsOthers()) return "Switch back to the labels of the run (x) to change them.";
    return "";
  },

  radius: () => Math.max(0.5, tools.share * Math.max(...viewer.record.size)),

  choose(tool) {
    this.cancel();
    this.tool = tool;
    if (tool !== "select") viewer.select([]);
    if (this.label === null && page.run.classes.length) this.label = page.run.classes[0].id;
    this.show();
    return true;
  },

  /** Show the chosen tool, class and size, or why there are no tools. */
  show() {
    const reason = this.reason();
    byId("tools").hidden = !viewer.objects || Boolean(reason);
    byId("no-tools").hidden = !reason;
    byId("no-tools").textContent = reason;
    for (const button of document.querySelectorAll("#tools [data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === this.tool));
    const draws = this.tool === "brush" || this.tool === "lasso";
    byId("stack").dataset.tool = byId("tools").hidden ? "select" : this.tool;
    byId("becomes").disabled = !draws && !viewer.selected.size;
    byId("becomes").value = draws ? String(this.label) : "";
    byId("size").disabled = this.tool === "select" || this.tool === "lasso";
    byId("size").value = String(Math.log2(this.share));
    byId("undo").disabled = !this.points.length && !changes.kept(viewer.record).steps.length;
    byId("redo").disabled = !changes.kept(viewer.record).undone.length;
    const { size } = viewer.selected;
    const hints = {
      select: size ? `${plural(size, "region")} selected: choose a class` : "Click a region, or drag a box around several",
      brush: "Draw over what is missing or wrong",
      lasso: "Draw around something, or click its corners; Enter, or the first corner, closes it",
      eraser: "Draw over strokes to remove them",
    };
    byId("selection").textContent = hints[this.tool];
    this.moveCursor(null);
  },

  /** Draw in another class, or give it to what is selected. True if that is possible. */
  setLabel(id) {
    if (byId("tools").hidden) return viewer.say(this.reason());
    if (!(id === 0 || id === page.run.ignore || page.classes.has(id))) return false;
    if (this.tool === "select") return viewer.become(id);
    if (this.tool === "eraser") this.choose("brush");
    this.label = id;
    this.show();
    const name = id === 0 ? "background" : page.classes.get(id)?.name || "ignored";
    return viewer.say(`Draw ${name}`);
  },

  resize(factor) {
    this.share = Math.min(LARGEST, Math.max(SMALLEST, this.share * factor));
    this.show();
    return viewer.say(`Size ${(2 * this.radius()).toFixed(0)} pixels`);
  },

  // ---- pointers ----

  down(event) {
    if (byId("tools").hidden || ![0, 5].includes(event.button)) return; // 5 is the other end of a pen
    this.pressed = [event.clientX, event.clientY];
    this.dragged = false;
    this.erases = this.tool === "eraser" || (this.tool === "brush" && event.button === 5);
    if (this.tool === "select") return;
    if (this.tool === "lasso" && this.points.length > 2 && this.isNearFirst(event)) return this.finish();
    if (Number(byId("opacity").value) === 0) viewer.switchOverlay();
    if (!this.erases && viewer.hidden.has(this.label)) viewer.toggle(this.label); // what is drawn is seen
    if (!this.points.length) this.before = viewer.ids.slice();
    this.alone = !this.points.length;
    this.extend(event, 0);
  },

  move(event) {
    this.moveCursor(event);
    if (!this.pressed) return this.tool === "lasso" && this.points.length ? this.drawLine(viewer.pointOf(event)) : undefined;
    this.dragged ||= Math.hypot(event.clientX - this.pressed[0], event.clientY - this.pressed[1]) >= TREMBLE;
    if (this.tool === "select") return this.drawBox(event);
    if (this.tool === "lasso" && !this.dragged) return;
    const all = event.getCoalescedEvents?.() || [];
    for (const each of all.length ? all : [event]) this.extend(each, 1);
  },

  up(event) {
    if (!this.pressed) return;
    const freehand = this.tool === "lasso" && this.dragged;
    if (this.tool === "select") this.drop(event);
    else if (this.tool !== "lasso" || (freehand && (this.alone || this.isNearFirst(event)))) this.finish();
    this.pressed = null;
    this.drawBox(null);
  },

  /** Add the place of the pointer to the stroke, if it is this many pixels of the screen from the last one. */
  extend(event, least) {
    const point = viewer.pointOf(event);
    const last = this.points.at(-1);
    if (last && Math.hypot(point[0] - last[0], point[1] - last[1]) < least / viewer.pixelsPerPixel()) return;
    this.points.push(point);
    if (this.tool === "lasso") return this.drawLine(null);
    drawStroke(viewer, this.stroke(this.points.slice(-2)), changes.of(viewer.record).strokes.length + 1, viewer.size, viewer.record.size);
    this.drawSoon();
  },

  stroke(points) {
    const label = this.erases ? ERASE : this.label;
    return this.tool === "lasso" ? { label, points } : { label, radius: Number(this.radius().toFixed(2)), points };
  },

  isNearFirst(event) {
    const [[y, x], scale] = [viewer.pointOf(event), viewer.pixelsPerPixel()];
    return Math.hypot(y - this.points[0][0], x - this.points[0][1]) * scale <= CLOSE;
  },

  /** End the stroke that is being drawn. */
  finish() {
    const stroke = this.points.length ? this.stroke(this.points) : null;
    this.points = [];
    this.pressed = null;
    if (!stroke) return false;
    const [strokes, { record, size }] = [[...changes.of(viewer.record).strokes, stroke], viewer];
    const drawn = { ids: this.before.slice(), base: viewer.base, owners: viewer.owners.slice() };
    drawStroke(drawn, stroke, strokes.length, size, record.size);
    const isExact = size[0] === record.size[0] && size[1] === record.size[1]; // else it may change pixels between those of the map
    const tooMany = strokes.reduce((sum, each) => sum + each.points.length, 0) > POINTS_MAX || strokes.reduce((sum, each) => sum + boxShare(each, record.size), 0) > AREAS_MAX;
    const reason =
      this.tool === "lasso" && stroke.points.length < 3
        ? "A lasso goes around something: draw or click at least three points."
        : tooMany
          ? "This image has too many strokes. Save and import them, and write the page again."
          : isExact && drawn.ids.every((id, at) => id === this.before[at])
            ? "That changes nothing."
            : "";
    if (!reason) return viewer.change({ stroke });
    viewer.applyChanges();
    return viewer.say(reason);
  },

  /** End what is being drawn before another image is shown. */
  leave() {
    if (this.points.length && !(this.tool === "lasso" && this.points.length < 3)) this.finish();
    else this.cancel();
  },

  /** Drop the last corner of a lasso, or all that is being drawn or selected. True if there was something. */
  dropLast() {
    if (this.tool !== "lasso" || this.points.length < 2 || this.pressed) return this.cancel();
    this.points.pop();
    this.drawLine(null);
    return true;
  },

  /** Drop what is being drawn or selected. True if there was something. */
  cancel() {
    const draws = this.points.length > 0;
    if (!draws && !viewer.selected.size) return false;
    this.points = [];
    this.pressed = null;
    viewer.select([]);
    if (draws) viewer.applyChanges();
    return true;
  },

  // ---- selecting ----

  /** Select what the pointer was dragged over, or clicked. With Shift, keep what was selected. */
  drop(event) {
    const [start, end] = [viewer.placeOf({ clientX: this.pressed[0], clientY: this.pressed[1] }), viewer.placeOf(event)];
    if (!start || !end) return;
    const found = this.dragged ? this.objectsIn([Math.min(start[0], end[0]), Math.min(start[1], end[1])], [Math.max(start[0], end[0]), Math.max(start[1], end[1])]) : [viewer.numberAt(start[0] * viewer.size[1] + start[1])];
    viewer.select(event.shiftKey ? [...viewer.selected, ...found] : found.filter(Boolean));
  },

  /** The objects and strokes of which most pixels are in a box. */
  objectsIn([top, left], [bottom, right]) {
    const [all, inside] = [new Map(), new Map()];
    for (let y = 0, at = 0; y < viewer.size[0]; y++) {
      for (let x = 0; x < viewer.size[1]; x++, at++) {
        const number = viewer.numberAt(at);
        if (!number || number > viewer.record.objects) continue;
        all.set(number, (all.get(number) || 0) + 1);
        if (y >= top && y <= bottom && x >= left && x <= right) inside.set(number, (inside.get(number) || 0) + 1);
      }
    }
    return [...inside.keys()].filter((number) => 2 * inside.get(number) > all.get(number));
  },

  // ---- drawing on the screen ----

  drawSoon() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      viewer.draw();
    });
  },

  drawBox(event) {
    const box = byId("box");
    box.hidden = !event || !this.pressed || !this.dragged;
    if (box.hidden) return;
    const frame = byId("stack").getBoundingClientRect();
    const [x, y] = [Math.min(event.clientX, this.pressed[0]) - frame.left, Math.min(event.clientY, this.pressed[1]) - frame.top];
    box.style.cssText = `left:${x}px;top:${y}px;width:${Math.abs(event.clientX - this.pressed[0])}px;height:${Math.abs(event.clientY - this.pressed[1])}px`;
  },

  /** Draw the line of a lasso in two tones, up to the pointer. */
  drawLine(pointer) {
    viewer.draw();
    const context = byId("overlay").getContext("2d");
    const scale = viewer.size[1] / viewer.record.size[1];
    context.beginPath();
    for (const [y, x] of pointer ? [...this.points, pointer] : this.points) context.lineTo(x * scale, y * scale);
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = (width * scale) / viewer.pixelsPerPixel();
      context.stroke();
    }
  },

  /** Show the size of the brush where the pointer is. */
  moveCursor(event) {
    const cursor = byId("cursor");
    cursor.hidden = !event || event.pointerType === "touch" || !["brush", "eraser"].includes(byId("stack").dataset.tool);
    if (cursor.hidden) return;
    const frame = byId("stack").getBoundingClientRect();
    const radius = this.radius() * viewer.pixelsPerPixel();
    cursor.style.cssText = `left:${event.clientX - frame.left - radius}px;top:${event.clientY - frame.top - radius}px;width:${2 * radius}px;height:${2 * radius}px`;
  },
};

for (const button of document.querySelectorAll("#tools [data-tool]")) button.addEventListener("click", () => tools.choose(button.dataset.tool));
byId("becomes").addEventListener("change", () => tools.setLabel(Number(byId("becomes").value)));
byId("size").addEventListener("input", () => tools.resize(2 ** Number(byId("size").value) / tools.share));
byId("stack").addEventListener("dblclick", () => tools.tool === "lasso" && tools.finish());
byId("stack").addEventListener("pointerleave", () => tools.moveCursor(null));

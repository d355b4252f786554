"use strict";
// The image list: load the data chunk by chunk, filter it, and draw the visible thumbnails.
// Names are untrusted: set them only through textContent, value and setAttribute.

const byId = (id) => document.getElementById(id);

/** Create an element with properties and children, which are elements or strings. */
function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.includes("-") || name === "role" || name === "scope" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

const CELL = { width: 168, height: 196 };

const page = { run: null, records: [], shown: [], classes: new Map(), complete: false, columns: 1, cells: new Map(), filtered: 0 };

/** The functions that the data scripts call. */
const tipsseg = {
  run(facts) {
    page.run = facts;
    for (const each of facts.classes) page.classes.set(each.id, each);
    storage.read();
    document.title = `tipsseg report: ${facts.name}`;
    byId("title").textContent = facts.name;
    for (const each of facts.classes) byId("class").append(element("option", { value: String(each.id), textContent: each.name }));
    const folder = shellWord(facts.name);
    for (const each of document.querySelectorAll("code.out")) each.textContent = each.textContent.replace("OUT", () => folder);
    byId("filtering").open = innerWidth > 720; // on a phone, pictures come first
    byId("becomes").append(
      ...[["", "choose"], ["0", "0 background"], ...facts.classes.map((each) => [String(each.id), `${each.id} ${each.name}`]), [String(facts.ignore), "i ignored"]].map(
        ([value, textContent]) => element("option", { value, textContent }),
      ),
    );
    statistics.prepare();
    restoreForm();
    loadChunk(0);
  },
  images(index, records) {
    for (const record of records) page.records.push(record);
    // Filtering takes time in proportion to all records, so do it whenever their number has doubled.
    if (page.records.length >= 2 * page.filtered) refresh();
    loadChunk(index + 1);
  },
  map(key, ...found) {
    maps.take(key, found);
  },
};

function loadScript(address, failed) {
  const script = element("script", { src: address, onload: () => script.remove(), onerror: failed });
  document.head.append(script);
}

function loadChunk(index) {
  const { chunks, images, ended } = page.run;
  page.complete = index >= chunks.length;
  const state = ended ? "" : " The run is not finished.";
  byId("about").textContent = (page.complete ? `${images} images.` : `Loading: ${page.records.length} of ${images} images.`) + state;
  if (page.complete) {
    changes.tidy();
    refresh();
    statistics.draw();
    restoreImage();
    viewer.showChanges();
  } else if (index === 0) {
    loadScript(chunks[0], () => missing(chunks[0]));
  } else {
    // Draw the visible thumbnails before loading the next chunk.
    setTimeout(() => loadScript(chunks[index], () => missing(chunks[index])), 0);
  }
}

function missing(file) {
  byId("about").textContent = `${file} is missing. Write the page again: tipsseg report ${shellWord(page.run.name)}`;
}

/** Quote a word for a shell. */
const shellWord = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

// ---- the list of marked images ----

function markedPaths() {
  const mark = byId("exported").value;
  return page.records.filter((each) => changes.mark(each) === mark).map((each) => each.path);
}

/** The list for `tipsseg label -`, separated by NUL if a path contains a line break. */
function pathList() {
  const paths = markedPaths();
  const end = paths.some((path) => /[\n\r]/.test(path)) ? "\0" : "\n";
  return paths.map((path) => path + end).join("");
}

function writeList() {
  byId("nul").hidden = !pathList().includes("\0");
  byId("paths").value = pathList();
}

// ---- filters ----

function confidenceOf(record, id) {
  if (id === null) return record.confidence;
  const found = record.classes.find((each) => each[0] === id);
  return found ? found[2] : null;
}

/** The id of the selected class; null for any. */
const chosenClass = () => (byId("class").value === "" ? null : Number(byId("class").value));

function refresh() {
  page.filtered = page.records.length;
  const text = byId("search").value.toLowerCase();
  const id = chosenClass();
  const state = byId("state").value;
  const mark = byId("mark").value;
  const low = Number(byId("low").value || 0);
  const high = Number(byId("high").value || 100);
  const anything = low <= 0 && high >= 100;
  page.shown = page.records.filter((each) => {
    if (text && !each.path.toLowerCase().includes(text)) return false;
    if (each === viewer.record) return true; // it is open
    if (state && (state === "changed" ? !changes.count(each) : each.state !== state)) return false;
    const record = changes.now(each);
    if (id !== null && !record.classes.some((part) => part[0] === id)) return false;
    if (mark && (changes.mark(each) || "none") !== mark) return false;
    if (anything) return true;
    const value = confidenceOf(record, id);
    return known(value) && inPercent(value) >= low && inPercent(value) <= high;
  });
  const order = byId("order").value;
  if (order === "path") page.shown.sort((a, b) => (a.image < b.image ? -1 : 1));
  // Corrected and failed images come last.
  const sureness = (each) => (each.state === "unchanged" ? each.confidence ?? 0 : null);
  if (order === "score") page.shown.sort((a, b) => (sureness(a) ?? 2) - (sureness(b) ?? 2));
  if (order === "sure") page.shown.sort((a, b) => (sureness(b) ?? -1) - (sureness(a) ?? -1));
  if (order === "doubt") page.shown.sort((a, b) => (b.doubts?.[0][3] ?? -1) - (a.doubts?.[0][3] ?? -1));
  if (order === "truth") page.shown.sort((a, b) => (a.accuracy ?? 2) - (b.accuracy ?? 2));
  if (viewer.record) viewer.index = page.shown.indexOf(viewer.record);
  byId("restarts").hidden = order !== "review";
  byId("count").textContent = `${page.shown.length} of ${page.records.length} images shown`;
  drawColours();
  layOut();
}

/** Draw the legend of the thumbnails. */
function drawColours() {
  const now = page.shown.map((each) => changes.now(each));
  const found = new Set(now.flatMap((each) => each.classes.map((part) => part[0])));
  const entries = page.run.classes.filter((each) => found.has(each.id)).map((each) => [each.name, each.colour]);
  if (now.some((each) => each.ignored)) entries.push(["ignored", IGNORED]);
  byId("colours").replaceChildren(...entries.map(([name, colour]) => element("li", {}, swatch(colour), name)));
}

// ---- state in the address, after "#", for reload and Back ----

const fields = () => [...byId("filters").elements].filter((each) => each.id);
const unset = (field) => (field.options ? field.options[0].value : field.defaultValue);

/** Save the filters, the view and the open image in the address. "pushState" adds a history entry, so that Back works. */
function notePlace(how = "replaceState") {
  const place = new URLSearchParams();
  for (const field of fields()) if (field.value !== unset(field)) place.set(field.id, field.value);
  const view = document.querySelector('nav [aria-pressed="true"]').dataset.view;
  if (view !== "images") place.set("view", view);
  if (viewer.record) place.set("image", viewer.record.image);
  history[how](how === "pushState" ? { opened: true } : history.state, "", `#${place}`);
}

const notedPlace = () => new URLSearchParams(location.hash.slice(1));

function restoreForm() {
  const place = notedPlace();
  for (const field of fields()) {
    field.value = place.get(field.id) ?? unset(field);
    if (field.selectedIndex < 0) field.value = unset(field); // saved by a page with other classes
  }
  show(["classes", "truth"].find((each) => each === place.get("view") && (each !== "truth" || page.run.truth)) || "images");
}

function restoreImage() {
  const name = notedPlace().get("image");
  const index = page.shown.findIndex((each) => each.image === name);
  if (index >= 0) viewer.show(index);
  else byId("viewer").close();
}

window.addEventListener("popstate", () => {
  restoreForm();
  refresh();
  restoreImage();
});

// ---- the grid: only visible thumbnails are in the document ----

function layOut() {
  const width = byId("grid").clientWidth;
  page.columns = Math.max(1, Math.floor(width / CELL.width));
  byId("grid").style.height = `${Math.ceil(page.shown.length / page.columns) * CELL.height}px`;
  redraw();
}

function redraw() {
  const focused = document.activeElement && document.activeElement.dataset.index;
  for (const cell of page.cells.values()) cell.remove();
  page.cells.clear();
  drawVisible();
  if (focused !== undefined && page.cells.has(Number(focused))) page.cells.get(Number(focused)).firstChild.focus();
}

function drawVisible() {
  const scroll = byId("scroll");
  const first = Math.max(0, Math.floor(scroll.scrollTop / CELL.height) - 1) * page.columns;
  const rows = Math.ceil(scroll.clientHeight / CELL.height) + 3;
  const last = Math.min(page.shown.length, first + rows * page.columns);
  for (const [index, cell] of page.cells) {
    if (index < first || index >= last) {
      cell.remove();
      page.cells.delete(index);
    }
  }
  for (let index = first; index < last; index++) {
    if (!page.cells.has(index)) {
      const cell = makeCell(index);
      page.cells.set(index, cell);
      byId("grid").append(cell);
    }
  }
}

const address = (folder, key, suffix) => `${folder}/${key.slice(0, 2)}/${key}${suffix}`;
const known = (value) => value !== null && value !== undefined;
const inPercent = (value) => Math.round(100 * value);
const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const percent = (value) => (known(value) ? `${inPercent(value)} %` : "unknown");

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.background = colour;
  return made;
}

function describe(record) {
  const mark = changes.mark(record);
  const parts = mark ? [`marked ${mark}`] : [];
  if (record.state !== "unchanged") parts.push(record.state);
  const changed = changes.count(record);
  if (changed) parts.push(plural(changed, "change"));
  if (record.accuracy !== undefined) parts.push(`${percent(record.accuracy)} right`);
  if (record.state !== "failed") parts.push(`confidence ${percent(record.confidence)}`);
  const id = chosenClass();
  const ofClass = id === null ? null : confidenceOf(changes.now(record), id);
  if (known(ofClass)) parts.push(`${page.classes.get(id).name} ${percent(ofClass)}`);
  return parts.join(", ");
}

function makeCell(index) {
  const record = page.shown[index];
  const view = record.key
    ? thumbnails.of(record)
    : element("span", { className: "nothing", textContent: "no labels" });
  const button = element(
    "button",
    { type: "button", title: record.path, onclick: () => viewer.open(index), "data-index": String(index) },
    view,
    element("span", { textContent: record.image }),
    element("span", { className: "soft", textContent: describe(record).replaceAll(" %", "\u00a0%") }),
  );
  const cell = element("div", { className: changes.count(record) ? "cell changed" : "cell", role: "listitem", "aria-posinset": String(index + 1), "aria-setsize": String(page.shown.length) }, button);
  const width = 100 / page.columns;
  cell.style.cssText = `left:${(index % page.columns) * width}%;width:${width}%;top:${Math.floor(index / page.columns) * CELL.height}px;height:${CELL.height}px`;
  return cell;
}

function focusCell(index) {
  const to = Math.min(page.shown.length - 1, Math.max(0, index));
  const top = Math.floor(to / page.columns) * CELL.height;
  const scroll = byId("scroll");
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  if (top + CELL.height > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + CELL.height - scroll.clientHeight;
  drawVisible();
  if (page.cells.has(to)) page.cells.get(to).firstChild.focus();
}

byId("grid").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -page.columns, ArrowDown: page.columns, Home: -Infinity, End: Infinity };
  const step = steps[event.key];
  const index = Number(event.target.dataset.index);
  if (step === undefined || Number.isNaN(index)) return;
  event.preventDefault();
  focusCell(step === Infinity ? page.shown.length - 1 : step === -Infinity ? 0 : index + step);
});

byId("scroll").addEventListener("scroll", () => requestAnimationFrame(drawVisible));
window.addEventListener("resize", () => page.run && layOut());
byId("filters").addEventListener("input", () => {
  refresh();
  notePlace();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () =>
  setTimeout(() => {
    refresh();
    notePlace();
  }, 0),
);
byId("exported").addEventListener("input", writeList);
byId("export").addEventListener("toggle", () => {
  writeList();
  if (page.run) layOut();
});
byId("copy").addEventListener("click", () => {
  byId("paths").select();
  const done = document.execCommand("copy");
  byId("copied").textContent = done ? `${plural(markedPaths().length, "path")} copied` : "Copy the selected text by hand.";
});
byId("copy-import").addEventListener("click", () => {
  getSelection().selectAllChildren(byId("import"));
  document.execCommand("copy");
});
function saveFile(name, text) {
  const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text])) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
byId("save").addEventListener("click", () => saveFile(`${byId("exported").value}.txt`, pathList()));

// ---- views ----

function show(view) {
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
    byId(button.dataset.view).hidden = button.dataset.view !== view;
  }
  if (view === "images") layOut();
  if (view === "classes" && page.complete) statistics.draw();
}
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    show(button.dataset.view);
    notePlace();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !byId("viewer").open && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
    event.preventDefault();
    show("images");
    byId("search").focus();
  }
});

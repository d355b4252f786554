"use strict";
// Corrections in the page: objects of an image get another class. The browser keeps them; a file takes them to `tipsseg correct`.

const corrections = {
  all: {}, // label id by number of the object, by mask; see keyOf
  saved: new Set(), // the masks of saved files: later files have them too, also without a change, to take the import back
  stored: true, // whether the browser keeps them
  done: [], // the changes since the page was opened, for undo: lists of [key, number, id before or undefined]

  /** A mask is named by its digest and its image: pages from the disk may share storage, and images may have equal masks. */
  keyOf: (record) => `${record.labels} ${record.image}`,
  storageKey: () => `tipsseg-corrections:${page.run.digest}:${page.run.name}`,

  read() {
    try {
      this.all = Object.assign({}, JSON.parse(localStorage.getItem(this.storageKey())));
      this.saved = new Set(JSON.parse(localStorage.getItem(`${this.storageKey()}:saved`)));
    } catch {
      this.all = {};
    }
  },

  of(record) {
    return this.all[this.keyOf(record)] || {};
  },

  /** Give objects of an image other label ids: a map of both. */
  set(record, ids) {
    const key = this.keyOf(record);
    const own = (this.all[key] ||= {});
    this.done.push([...ids.keys()].map((number) => [key, number, own[number]]));
    for (const [number, id] of ids) own[number] = id;
    this.keep();
  },

  undo() {
    for (const [key, number, before] of this.done.pop() || []) {
      if (before === undefined) delete this.all[key][number];
      else this.all[key][number] = before;
      if (!Object.keys(this.all[key]).length) delete this.all[key];
    }
    this.keep();
  },

  keep() {
    try {
      localStorage.setItem(this.storageKey(), JSON.stringify(this.all));
      localStorage.setItem(`${this.storageKey()}:saved`, JSON.stringify([...this.saved]));
      this.stored = true;
    } catch {
      this.stored = false;
    }
  },

  /** The corrections of the masks that this page shows; those of older masks are left out. */
  content() {
    const has = (key) => this.all[key] || this.saved.has(key);
    const records = page.records.filter((record) => record.labels && has(this.keyOf(record)));
    return records.map((record) => ({
      image: record.image,
      labels: record.labels,
      objects: Object.entries(this.of(record)).map(([number, id]) => ({ object: Number(number), ...this.meaning(id) })),
    }));
  },

  meaning(id) {
    if (id === page.run.ignore) return { ignore: true };
    return { class: id === 0 ? null : page.classes.get(id).name };
  },

  text() {
    const found = this.content();
    const objects = found.reduce((sum, each) => sum + each.objects.length, 0);
    if (!objects) return found.length ? "All changes undone: save again to undo them in the folder" : "Nothing changed";
    const warning = this.stored ? "" : ". This browser does not store them for local pages: save them before you close the page";
    return `${objects} ${objects === 1 ? "object" : "objects"} in ${found.length} ${found.length === 1 ? "image" : "images"} changed${warning}`;
  },

  /** Return the text of a file, and remember its masks. */
  file() {
    for (const record of page.records) if (this.all[this.keyOf(record)]) this.saved.add(this.keyOf(record));
    this.keep();
    return JSON.stringify({ tool: "tipsseg", corrections: this.content() }, null, 1);
  },
};

byId("save-corrections").addEventListener("click", () => saveFile("corrections.json", corrections.file()));

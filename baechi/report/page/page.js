"use strict";
(() => {
  const began = performance.now();

  // Tables: a click on the head of a column sorts by it, a second one the other way round.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", {numeric: true}) : x - y;
  };
  const sort = (table, column) => {
    const heads = table.tHead.rows[0].cells;
    const first = heads[column].classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const way = heads[column].getAttribute("aria-sort") === first ? other : first;
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => sign * compare(value(a, column), value(b, column)));
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, column));
      head.replaceChildren(button);
    });
  }

  // Charts: one Bokeh document for each step.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const looks = (isDark) => {
    const ink = isDark ? "#e6e9ed" : "#1b1f24", line = isDark ? "#4a525c" : "#c6ccd3";
    const axis = {axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: line};
    return {Title: {text_color: ink}, Grid: {grid_line_color: line}, LinearAxis: axis};
  };
  const paint = (doc, isDark) => {
    const look = looks(isDark);
    for (const model of doc.all_models) if (look[model.type]) model.setv(look[model.type]);
  };
  // The same before anything is drawn, in the document's JSON: drawing twice would take twice as long.
  const dye = (value, look) => {
    if (Array.isArray(value)) {
      if (typeof value[0] === "object") for (const one of value) dye(one, look);
    } else if (value !== null && typeof value === "object") {
      if (look[value.name] && value.attributes) Object.assign(value.attributes, look[value.name]);
      for (const one of Object.values(value)) dye(one, look);
    }
  };
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const tell = (pane, source, i, unit) => {
    const at = (column) => source.data[column][i];
    const rows = [
      ["name", at("name")], ["kind", at("kind")], ["on", at("where")], [at("kind") === "transfer" ? "size" : "module", at("about")],
      ["source", at("source")], ["begins", `${at("left").toPrecision(6)} ${unit}`], ["takes", `${at("takes").toPrecision(4)} ${unit}`],
      ["critical path", at("critical") ? "yes" : "no"],
    ];
    pane.replaceChildren(...rows.filter(([, text]) => text !== "").map(([label, text]) => {
      const [row, dt, dd] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      [dt.textContent, dd.textContent] = [label, text];
      row.append(dt, dd);
      return row;
    }));
  };

  const most = 20;
  const search = (sources, text) => {
    const found = [];
    for (const source of sources) {
      const {name, kind, about} = source.data;
      for (let i = 0; i < name.length && found.length < most; i++) {
        if (`${name[i]} ${kind[i]} ${about[i]}`.toLowerCase().includes(text)) found.push([source, i]);
      }
    }
    return found;
  };

  const connect = (doc, n) => {
    const models = [...doc.all_models];
    const named = (start) => models.filter((model) => model.name?.startsWith(start) && model.name.endsWith(`-${n}`));
    const renderers = [...named("ops-"), ...named("transfers-")].filter((model) => model.type === "GlyphRenderer");
    const sources = renderers.map((renderer) => renderer.data_source);
    const range = models.find((model) => model.name === `time-${n}`);
    const [start, end] = [range.start, range.end];
    const [unit] = range.tags;
    const pane = document.getElementById(`chosen-${n}`);
    const kind = (name) => (name.includes("measured") ? "measured" : "predicted");
    const chosen = Object.fromEntries(named("chosen-").map((renderer) => [kind(renderer.name), renderer]));
    const frame = (source, i) => {
      for (const one of Object.values(chosen)) one.data_source.data = {left: [], right: [], y: [], height: []};
      const {data_source, glyph} = chosen[kind(source.name)];
      glyph.line_color = looks(dark.matches).Title.text_color;
      data_source.data = Object.fromEntries(["left", "right", "y", "height"].map((column) => [column, [source.data[column][i]]]));
    };
    for (const source of sources) {
      source.selected.change.connect(() => {
        const [i] = source.selected.indices;
        if (i === undefined) return;
        for (const other of sources) if (other !== source && other.selected.indices.length) other.selected.indices = [];
        tell(pane, source, i, unit);
        frame(source, i);
      });
    }
    const go = (source, i) => {
      const {left, right} = source.data;
      const width = Math.min(end - start, 40 * (right[i] - left[i]));
      const middle = Math.min(Math.max((left[i] + right[i]) / 2, start + width / 2), end - width / 2);
      range.setv({start: middle - width / 2, end: middle + width / 2});
      source.selected.indices = [i];
    };
    const list = document.getElementById(`found-${n}`);
    document.getElementById(`find-${n}`).addEventListener("input", (event) => {
      const text = event.target.value.trim().toLowerCase();
      list.replaceChildren(...(text ? search(sources, text) : []).map(([source, i]) => {
        const [item, button] = ["li", "button"].map((tag) => document.createElement(tag));
        button.type = "button";
        button.textContent = `${source.data.name[i]} on ${source.data.where[i]}`;
        button.addEventListener("click", () => go(source, i));
        item.append(button);
        return item;
      }));
    });
    const parts = named("critical-");
    document.getElementById(`critical-${n}`).addEventListener("change", (event) => {
      for (const part of parts) part.visible = event.target.checked;
    });
    document.getElementById(`find-${n}`).closest(".controls").hidden = false;
  };

  const draw = async () => {
    const known = new Set();
    for (const script of document.querySelectorAll("script[id^=data-]")) {
      const n = script.id.slice("data-".length);
      const item = await unpack(script.textContent);
      dye(item, looks(dark.matches));
      await Bokeh.embed.embed_item(item);
      const doc = Bokeh.documents.find((one) => !known.has(one));
      known.add(doc);
      connect(doc, n);
    }
    dark.addEventListener("change", () => known.forEach((doc) => paint(doc, dark.matches)));
    addEventListener("beforeprint", () => known.forEach((doc) => paint(doc, false)));
    addEventListener("afterprint", () => known.forEach((doc) => paint(doc, dark.matches)));
    requestAnimationFrame(() => setTimeout(() => {
      document.documentElement.dataset.drawn = String(Math.round(performance.now() - began));
    }));
  };
  draw().catch((error) => {
    for (const place of document.querySelectorAll(".chart")) place.textContent = `This browser cannot draw the charts: ${error.message}`;
    throw error;
  });
})();

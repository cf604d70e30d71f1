"use strict";
(() => {
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

  // Colours and what is in the sources before anything is drawn, in the document's JSON: drawing twice takes twice as long.
  const prepare = (value, look, data) => {
    if (Array.isArray(value)) {
      if (typeof value[0] === "object") for (const one of value) prepare(one, look, data);
    } else if (value !== null && typeof value === "object") {
      const {name, attributes} = value;
      if (look[name] && attributes) Object.assign(attributes, look[name]);
      if (name === "ColumnDataSource" && data[attributes.name]) attributes.data.entries = Object.entries(data[attributes.name]);
      else for (const one of Object.values(value)) prepare(one, look, data);
    }
  };

  // The bars and curves of a step, and what each source shows of them in a stretch of time.
  const contents = ({words, charts}, n) => {
    const bars = [], curves = [];
    for (const [kind, {ops, transfers, memory}] of Object.entries(charts)) {
      bars.push({chart: kind, id: `ops-${kind}-${n}`, share: 0.2, ...Spans.read(ops, words, "ops")});
      bars.push({chart: kind, id: `transfers-${kind}-${n}`, share: 1, ...Spans.read(transfers, words, "transfers")});
      for (const device of Object.keys(memory)) curves.push({name: `memory-${kind}-${n}-${device}-source`, ...Spans.readCurve(memory[device])});
    }
    const between = (start, end) => {
      const pixel = (end - start) / (document.getElementById(`charts-${n}`).clientWidth || 1200) / devicePixelRatio;
      const found = {};
      for (const one of bars) {
        const {all, critical} = Spans.shown(one, start, end, pixel, one.share);
        found[`${one.id}-source`] = all;
        found[`critical-${one.id}-source`] = critical;
      }
      for (const one of curves) found[one.name] = Spans.curve(one, start, end, pixel);
      return found;
    };
    return {bars, between};
  };

  const tell = (pane, bars, first, count, unit) => {
    const {left, right} = bars;
    const list = Array.from({length: count}, (_, k) => first + k);
    const all = (column, most) => {
      const texts = [...new Set(list.map((i) => bars[column](i)))].filter((text) => text !== "");
      return texts.slice(0, most).join(", ") + (texts.length > most ? ` and ${texts.length - most} more` : "");
    };
    const takes = list.reduce((sum, i) => sum + right[i] - left[i], 0);
    const rows = [
      [count === 1 ? "name" : `${count} ${bars.what}`, all("name", 5)], ["kind", all("kind", 5)], ["on", all("where", 3)],
      [bars.what === "transfers" ? "size" : "module", all("about", 3)], ["source", all("source", 3)],
      ["begins", `${left[first].toPrecision(6)} ${unit}`], ["takes", `${takes.toPrecision(4)} ${unit}`],
      ["critical path", list.some((i) => bars.critical[i]) ? "yes" : "no"],
    ];
    pane.replaceChildren(...rows.filter(([, text]) => text !== "").map(([label, text]) => {
      const [row, dt, dd] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      [dt.textContent, dd.textContent] = [label, text];
      row.append(dt, dd);
      return row;
    }));
  };

  const most = 20;
  const search = (allBars, text) => {
    const found = [];
    for (const bars of allBars) {
      for (let i = 0; i < bars.count && found.length < most; i++) {
        if (`${bars.name(i)} ${bars.kind(i)} ${bars.about(i)}`.toLowerCase().includes(text)) found.push([bars, i]);
      }
    }
    return found;
  };

  const connect = (doc, n, {bars, between}) => {
    const model = Object.fromEntries([...doc.all_models].filter((one) => one.name).map((one) => [one.name, one]));
    const range = model[`time-${n}`];
    const [start, end] = [range.start, range.end];
    const [unit] = range.tags;
    const pane = document.getElementById(`chosen-${n}`);

    let waits = false;
    const refresh = () => {
      waits = false;
      for (const [name, data] of Object.entries(between(range.start, range.end))) {
        if (model[name].selected.indices.length) model[name].selected.indices = [];
        model[name].data = data;
      }
    };
    const soon = () => {
      if (!waits) requestAnimationFrame(refresh);
      waits = true;
    };
    range.change.connect(soon);
    addEventListener("resize", soon);

    const choose = (one, first, count) => {
      tell(pane, one, first, count, unit);
      const {y, height} = one.lanes.find((lane) => first < lane.end);
      for (const other of bars) model[`chosen-${other.chart}-${n}-source`].data = {left: [], right: [], y: [], height: []};
      model[`chosen-${one.chart}-${n}`].glyph.line_color = looks(dark.matches).Title.text_color;
      const frame = {left: [one.left[first]], right: [one.right[first + count - 1]], y: [y], height: [height]};
      model[`chosen-${one.chart}-${n}-source`].data = frame;
    };
    for (const one of bars) {
      const {selected} = model[`${one.id}-source`];
      selected.change.connect(() => {
        const [i] = selected.indices;
        if (i === undefined) return;
        for (const other of bars) {
          const its = model[`${other.id}-source`].selected;
          if (other !== one && its.indices.length) its.indices = [];
        }
        const {first, count} = model[`${one.id}-source`].data;
        choose(one, first[i], count[i]);
      });
    }
    const go = (one, i) => {
      const [left, right] = [one.left[i], one.right[i]];
      const width = Math.min(end - start, 40 * (right - left));
      const middle = Math.min(Math.max((left + right) / 2, start + width / 2), end - width / 2);
      range.setv({start: middle - width / 2, end: middle + width / 2});
      choose(one, i, 1);
    };
    const list = document.getElementById(`found-${n}`);
    document.getElementById(`find-${n}`).addEventListener("input", (event) => {
      const text = event.target.value.trim().toLowerCase();
      list.replaceChildren(...(text ? search(bars, text) : []).map(([one, i]) => {
        const [item, button] = ["li", "button"].map((tag) => document.createElement(tag));
        button.type = "button";
        button.textContent = `${one.name(i)} on ${one.where(i)}`;
        button.addEventListener("click", () => go(one, i));
        item.append(button);
        return item;
      }));
    });
    const parts = Object.keys(model).filter((name) => name.startsWith("critical-") && model[name].type === "GlyphRenderer");
    document.getElementById(`critical-${n}`).addEventListener("change", (event) => {
      for (const name of parts) model[name].visible = event.target.checked;
    });
    document.getElementById(`find-${n}`).closest(".controls").hidden = false;
  };

  const draw = async () => {
    const known = new Set();
    for (const script of document.querySelectorAll("script[id^=data-]")) {
      const n = script.id.slice("data-".length);
      const data = await Spans.unpack(script.textContent);
      const inside = contents(data, n);
      prepare(data.item, looks(dark.matches), inside.between(...data.span));
      await Bokeh.embed.embed_item(data.item);
      const doc = Bokeh.documents.find((one) => !known.has(one));
      known.add(doc);
      connect(doc, n, inside);
    }
    dark.addEventListener("change", () => known.forEach((doc) => paint(doc, dark.matches)));
    addEventListener("beforeprint", () => known.forEach((doc) => paint(doc, false)));
    addEventListener("afterprint", () => known.forEach((doc) => paint(doc, dark.matches)));
    requestAnimationFrame(() => setTimeout(() => {
      document.documentElement.dataset.drawn = String(Math.round(performance.now())); // since the page was asked for
    }));
  };
  draw().catch((error) => {
    for (const place of document.querySelectorAll(".chart")) place.textContent = `This browser cannot draw the charts: ${error.message}`;
    throw error;
  });
})();

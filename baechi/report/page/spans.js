"use strict";
// What a timeline holds, and of it what can be told apart at the width of the screen.
const Spans = (() => {
  const BLOCK = 2; // pixels in which bars narrower than one are drawn as one

  const bytes = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text), found = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
    return found;
  };
  const unpack = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const array = (kind, text) => new kind(bytes(text).buffer);

  // Bars lane by lane, in each by time; the bars of a lane never overlap.
  const read = (columns, words, what) => {
    const texts = (column) => {
      const numbers = array(Uint32Array, columns[column]);
      return (i) => words[numbers[i]];
    };
    let first = 0;
    return {
      what,
      lanes: columns.lanes.map(([y, height, count]) => ({y, height, first, end: first += count})),
      count: first,
      left: array(Float64Array, columns.left),
      right: array(Float64Array, columns.right),
      tone: array(Uint8Array, columns.tone),
      critical: array(Uint8Array, columns.critical),
      ...Object.fromEntries(["name", "kind", "where", "about", "source"].map((column) => [column, texts(column)])),
    };
  };

  // The first of low..high at which a value that only grows is above a limit.
  const above = (values, limit, low, high) => {
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] > limit) high = middle;
      else low = middle + 1;
    }
    return low;
  };

  const TEXTS = ["name", "kind", "where", "about"];
  const empty = () => Object.fromEntries(["left", "right", "y", "height", "tone", ...TEXTS, "takes", "first", "count"].map((c) => [c, []]));
  const put = (out, lane, share, bars, left, takes, tone, first, count) => {
    out.left.push(left);
    out.right.push(left + takes);
    out.y.push(lane.y - lane.height * (1 - share) / 2);
    out.height.push(lane.height * share);
    out.tone.push(tone);
    out.takes.push(takes);
    out.first.push(first);
    out.count.push(count);
    for (const text of TEXTS) out[text].push(count === 1 ? bars[text](first) : "");
    if (count === 1) return;
    const at = out.name.length - 1;
    out.name[at] = `${count} ${bars.what}, one beside the other`;
    out.where[at] = bars.where(first);
    out.about[at] = "zoom in to tell them apart";
  };

  // A bar of at least a pixel is shown as it is; narrower ones within BLOCK pixels are one, as wide as they are together.
  const shown = (bars, start, end, pixel, share) => {
    const all = empty(), critical = empty();
    const {left, right, tone} = bars;
    const times = new Float64Array(8);
    for (const lane of bars.lanes) {
      let i = above(right, start, lane.first, lane.end);
      while (i < lane.end && left[i] < end) {
        const first = i, until = left[i] + BLOCK * pixel;
        let takes = right[i] - left[i], hot = bars.critical[i] ? takes : 0;
        if (takes < pixel) {
          times.fill(0);
          times[tone[i]] = takes;
          for (i++; i < lane.end && right[i] <= until && right[i] - left[i] < pixel; i++) {
            const more = right[i] - left[i];
            takes += more;
            times[tone[i]] += more;
            if (bars.critical[i]) hot += more;
          }
        } else i++;
        const most = i - first === 1 ? tone[first] : times.indexOf(Math.max(...times));
        put(all, lane, 1, bars, left[first], takes, most, first, i - first);
        if (hot) put(critical, lane, share, bars, left[first], hot, most, first, i - first);
      }
    }
    return {all, critical};
  };

  // A curve whose values hold until the next: of each pixel the highest value, and where it ends.
  const curve = ({x, y}, start, end, pixel) => {
    const out = {x: [], y: []};
    const last = Math.min(x.length, above(x, end, 0, x.length) + 1);
    for (let i = Math.max(0, above(x, start, 0, x.length) - 1); i < last; ) {
      const first = i, until = x[i] + pixel;
      let most = y[i];
      for (i++; i < last && x[i] < until; i++) most = Math.max(most, y[i]);
      out.x.push(x[first]);
      out.y.push(most);
      if (i - first > 1) {
        out.x.push(x[i - 1]);
        out.y.push(y[i - 1]);
      }
    }
    return {...out, zero: out.x.map(() => 0)};
  };
  const readCurve = ({x, y}) => ({x: array(Float64Array, x), y: array(Float64Array, y)});

  return {unpack, read, readCurve, shown, curve};
})();

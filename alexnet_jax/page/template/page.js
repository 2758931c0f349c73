"use strict";
(() => {
  const data = document.getElementById("chart-data");
  if (!data) return;

  const SVG = "http://www.w3.org/2000/svg";
  const TOP = 8, BOTTOM = 24, LEFT = 56, RIGHT = 8; // margins of a plot, pixels
  const MARKED = 60; // points in sight up to which each gets a dot
  const DOTTED = new Set(["line", "dashed"]);
  const DRAG = 6; // pixels that make a drag of a click

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const shape = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const significant = (value, digits) => Number(value.toPrecision(digits)).toString();
  const FORMATS = {
    nats: (value) => significant(value, 4),
    percent: (value) => `${significant(100 * value, 4)}%`,
    rate: (value) => significant(value, 3),
    count: (value) => Math.round(value).toLocaleString("en"),
  };

  // Round numbers between two: steps of 1, 2 or 5 times a power of ten.
  const ticks = (low, high, number) => {
    const rough = (high - low) / number, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12) + 1e-12 * step; n++) found.push(n * step);
    return found;
  };
  const logTicks = (low, high) => {
    const decades = Math.log10(high / low), factors = decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 2, 3, 5, 7];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of factors) {
        const value = factor * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    return found.length > 1 ? found : [low, high];
  };
  // The first position in a sorted array with a value of at least x.
  const position = (array, x) => {
    let low = 0, high = array.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (array[middle] < x) low = middle + 1; else high = middle;
    }
    return low;
  };

  const charts = JSON.parse(data.textContent);
  const end = Math.max(...charts.flatMap((chart) => chart.series.map((one) => one.x[one.x.length - 1])));
  const whole = [0, end > 0 ? end : 1];
  let range = whole.slice(), cursor = null; // shared by all charts; the cursor is an epoch

  let drawn = [];
  function draw() {
    for (const chart of drawn) chart.draw();
  }
  function read(epoch) {
    cursor = epoch;
    draw();
  }
  function show(next) {
    if (next[1] - next[0] < 1e-6 * whole[1]) return;
    range = next;
    draw();
  }
  function reset() {
    show(whole.slice());
  }
  function zoom(factor) {
    const center = Math.min(range[1], Math.max(range[0], cursor ?? (range[0] + range[1]) / 2));
    const from = center - factor * (center - range[0]), to = center + factor * (range[1] - center);
    show([Math.max(whole[0], from), Math.min(whole[1], to)]);
  }

  class Chart {
    constructor(chart) {
      this.series = chart.series;
      this.format = FORMATS[chart.format];
      this.isLog = chart.format === "rate";
      const button = (label, text, act) => {
        const made = element("button", { type: "button", "aria-label": `${label}: ${chart.title}`, title: label }, text);
        made.addEventListener("click", act);
        return made;
      };
      const positive = this.series.some((one) => one.y.some((y) => y > 0));
      this.logButton = button("Logarithmic scale", "log", () => { this.isLog = !this.isLog; this.draw(); });
      this.plot = shape("svg", { class: "plot", tabindex: 0, role: "img", "data-chart": chart.id });
      this.legend = element("ul", { class: "legend", "aria-live": "polite" });
      const caption = element("figcaption", {}, element("span", {}, chart.title));
      if (positive) caption.append(this.logButton); else this.isLog = false;
      caption.append(
        button("Zoom in", "+", () => zoom(0.5)), button("Zoom out", "−", () => zoom(2)),
        button("Show all", "all", reset));
      this.title = chart.title;
      this.figure = element("figure", { class: "chart" }, caption, this.plot, this.legend);
      this.listen();
    }

    listen() {
      const plot = this.plot;
      let start = null;
      plot.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        start = this.epochAt(event);
        this.down = event.clientX;
        if (event.pointerType === "mouse") plot.setPointerCapture(event.pointerId);
        read(start);
      });
      plot.addEventListener("pointermove", (event) => {
        const here = this.epochAt(event);
        this.selection = start !== null && event.pointerType === "mouse" ? [start, here] : null;
        read(here);
      });
      plot.addEventListener("pointerup", (event) => {
        const here = this.epochAt(event), far = Math.abs(event.clientX - this.down) >= DRAG;
        this.selection = null;
        if (start !== null && far && event.pointerType === "mouse")
          show([Math.min(start, here), Math.max(start, here)]);
        start = null;
        draw();
      });
      plot.addEventListener("pointercancel", () => { start = this.selection = null; draw(); });
      plot.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse" && start === null) read(null);
      });
      plot.addEventListener("dblclick", reset);
      plot.addEventListener("keydown", (event) => {
        const actions = {
          ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1),
          Home: () => read(range[0]), End: () => read(range[1]),
          "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
          Escape: reset, 0: reset,
        };
        if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        actions[event.key]();
      });
    }

    // Move the cursor to the next point, in either direction, of any curve.
    move(direction) {
      const from = cursor ?? (direction > 0 ? range[0] - 1e-9 : range[1] + 1e-9);
      let best = null;
      for (const one of this.series) {
        let n = position(one.x, from);
        if (direction > 0) while (n < one.x.length && one.x[n] <= from) n++; else n--;
        const x = one.x[n];
        if (x === undefined || x < range[0] || x > range[1]) continue;
        if (best === null || direction * x < direction * best) best = x;
      }
      if (best !== null) read(best);
    }

    epochAt(event) {
      const box = this.plot.getBoundingClientRect(), width = box.width - LEFT - RIGHT;
      const share = Math.min(1, Math.max(0, (event.clientX - box.left - LEFT) / width));
      return range[0] + share * (range[1] - range[0]);
    }

    // The points in sight, and one on either side.
    visible(one) {
      const from = Math.max(0, position(one.x, range[0]) - 1);
      return [from, Math.min(one.x.length, position(one.x, range[1] * (1 + 1e-12)) + 1)];
    }

    scale(height) {
      let low = Infinity, high = -Infinity;
      for (const one of this.series) {
        const [from, to] = this.visible(one);
        for (let n = from; n < to; n++) {
          const y = one.y[n];
          if (y === null || (this.isLog && y <= 0)) continue;
          if (one.x[n] < range[0] || one.x[n] > range[1]) continue;
          low = Math.min(low, y); high = Math.max(high, y);
        }
      }
      if (low > high) return null;
      if (this.isLog) {
        const pad = low === high ? 2 : (high / low) ** 0.05;
        low /= pad; high *= pad;
      } else {
        const pad = high === low ? Math.abs(high) || 1 : 0.06 * (high - low);
        low = Math.max(low >= 0 ? 0 : -Infinity, low - pad); high += pad;
      }
      const map = this.isLog ? Math.log : (value) => value;
      const from = map(low), to = map(high), room = height - TOP - BOTTOM;
      return { low, high, y: (value) => TOP + room * (1 - (map(value) - from) / (to - from)) };
    }

    draw() {
      const width = this.plot.clientWidth, height = this.plot.clientHeight;
      if (!width) return;
      this.logButton.setAttribute("aria-pressed", this.isLog);
      const x = (epoch) => LEFT + (width - LEFT - RIGHT) * (epoch - range[0]) / (range[1] - range[0]);
      const scale = this.scale(height), parts = [];
      if (scale) {
        for (const value of this.isLog ? logTicks(scale.low, scale.high) : ticks(scale.low, scale.high, 5)) {
          const y = scale.y(value);
          parts.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
          parts.push(shape("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.format(value)));
        }
        const clip = `clip-${this.plot.dataset.chart}`;
        const path = shape("clipPath", { id: clip });
        path.append(shape("rect", { x: LEFT - 7, y: 0, width: width - LEFT - RIGHT + 14, height: height - BOTTOM + 4 }));
        const inside = shape("g", { "clip-path": `url(#${clip})` });
        for (const one of this.series) this.drawSeries(one, x, scale, inside);
        parts.push(path, inside);
      } else {
        parts.push(shape("text", { x: LEFT, y: height / 2 }, "No finite value here."));
      }
      this.drawEpochs(x, width, height, parts);
      if (this.selection) {
        const [a, b] = this.selection.map(x).sort((p, q) => p - q);
        parts.push(shape("rect", { class: "selection", x: a, y: TOP, width: b - a, height: height - TOP - BOTTOM }));
      }
      if (cursor !== null && cursor >= range[0] && cursor <= range[1])
        parts.push(shape("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: TOP, y2: height - BOTTOM }));
      this.plot.replaceChildren(...parts);
      this.describe();
    }

    drawSeries(one, x, scale, group) {
      const [from, to] = this.visible(one), usable = (y) => y !== null && !(this.isLog && y <= 0);
      let path = "", isDrawing = false;
      for (let n = from; n < to; n++) {
        if (usable(one.y[n])) path += `${isDrawing ? "L" : "M"}${x(one.x[n]).toFixed(1)} ${scale.y(one.y[n]).toFixed(1)}`;
        isDrawing = usable(one.y[n]);
      }
      if (one.kind !== "points")
        group.append(shape("path", { class: `curve ${one.kind} c${one.color}`, d: path }));
      for (let n = from; n < to; n++) {
        const alone = !usable(one.y[n - 1] ?? null) && !usable(one.y[n + 1] ?? null);
        const marked = one.kind === "points" || alone || (to - from <= MARKED && DOTTED.has(one.kind));
        if (!marked || !usable(one.y[n])) continue;
        const radius = one.kind === "points" ? 5 : 2.6;
        group.append(shape("circle", { class: `dot ${one.kind} c${one.color}`, cx: x(one.x[n]), cy: scale.y(one.y[n]), r: radius }));
      }
    }

    drawEpochs(x, width, height, parts) {
      for (const epoch of ticks(range[0], range[1], width < 480 ? 4 : 7)) {
        const where = x(epoch), anchor = where > width - 24 ? "end" : "middle";
        parts.push(shape("text", { class: "epoch", x: where, y: height - 6, "text-anchor": anchor }, significant(epoch, 6)));
      }
      parts.push(shape("text", { x: 0, y: height - 6 }, "epoch"));
    }

    // Show each curve's value at the cursor, or its last one in sight.
    describe() {
      const items = [], spoken = [];
      let step = null;
      for (const one of this.series) {
        const n = this.nearest(one);
        const sample = shape("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" });
        sample.append(one.kind === "points"
          ? shape("circle", { class: `dot points c${one.color}`, cx: 11, cy: 5, r: 4 })
          : shape("path", { class: `curve ${one.kind} c${one.color}`, d: "M0 5H22" }));
        const value = n === null ? "none" : one.y[n] === null ? "not finite" : this.format(one.y[n]);
        if (n !== null && step === null) step = `epoch ${significant(one.x[n], 5)}, step ${one.step[n].toLocaleString("en")}`;
        items.push(element("li", {}, sample, one.name, element("b", {}, value)));
        spoken.push(`${one.name} ${value}`);
      }
      const where = cursor === null ? "Latest in sight" : "At the cursor";
      items.push(element("li", { class: "where" }, `${where}${step ? `: ${step}` : ""}`));
      this.legend.replaceChildren(...items);
      this.plot.setAttribute("aria-label", `${this.title}. ${spoken.join(", ")}`);
    }

    nearest(one) {
      const target = cursor ?? range[1];
      let n = Math.min(one.x.length - 1, position(one.x, target));
      if (n > 0 && target - one.x[n - 1] < one.x[n] - target) n--;
      if (one.x[n] > range[1] && n > 0) n--;
      return one.x[n] < range[0] || one.x[n] > range[1] ? null : n;
    }
  }

  drawn = charts.map((chart) => new Chart(chart));
  document.getElementById("charts").append(...drawn.map((chart) => chart.figure));
  draw();
  addEventListener("resize", draw);
})();

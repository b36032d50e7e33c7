// One output channel under the magnifying glass: its histogram, the quantization levels, the values being rounded.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const plotly = () => window.moduleName || window.Plotly;
  const BINS = 61, ROWS = 48;

  function histogram(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    const width = (high - low) / BINS || 1, counts = new Array(BINS).fill(0);
    for (const value of values) counts[Math.min(BINS - 1, Math.floor((value - low) / width))] += 1;
    return { x: counts.map((_, bin) => low + (bin + 0.5) * width), counts, width, low, high };
  }

  page.kinds.channel = ({ root, props, watch }) => {
    const empty = page.node("p", { class: "mpq-hint" }, "Click a cell of the map (or focus it and use the arrow keys) to open one channel.");
    const title = page.node("h3", {}), facts = page.node("p", { class: "mpq-facts", "aria-live": "polite" });
    const chart = page.node("div", { class: "mpq-chart mpq-chart-small", role: "img" });
    const output = page.node("output", { class: "mpq-big" });
    const slider = page.node("input", { type: "range", min: 1, max: 8, step: 1, value: 4, id: `${root.dataset.name}-bits`,
      "aria-label": "Bits of this channel", oninput: () => show(Number(slider.value)) });
    const order = page.node("select", { "aria-label": "Order of the values", onchange: () => show(Number(slider.value)) },
      page.node("option", { value: "error" }, "largest rounding error first"),
      page.node("option", { value: "size" }, "largest weight first"),
      page.node("option", { value: "place" }, "in the order they are stored"));
    const table = page.node("div", { class: "mpq-rounding", tabindex: 0, role: "region", "aria-label": "Values before and after rounding" });
    const body = page.node("div", {}, title,
      page.node("label", { class: "mpq-inline", for: `${root.dataset.name}-bits` }, "Bits", slider, output), facts, chart,
      page.node("label", { class: "mpq-inline" }, "The values being rounded,", order), table);
    root.append(empty, body);
    let data = null, codes = null, values = null;

    function load() {
      data = page.payload(props.channel);
      body.hidden = !data; empty.hidden = Boolean(data);
      if (!data) return;
      values = page.floats(data.values);
      codes = page.bytes(data.codes);
      slider.value = String(data.bits);
      title.textContent = `${data.layer} · channel ${data.channel}`;
      show(data.bits);
    }

    const rounded = (bits, index) => (codes[(bits - 1) * values.length + index] - data.offset[bits - 1]) * data.scale[bits - 1];

    function show(bits) {
      output.textContent = `${bits} bit${bits > 1 ? "s" : ""}`;
      let error = 0, energy = 0, worst = 0;
      values.forEach((value, index) => {
        const miss = value - rounded(bits, index);
        error += miss * miss; energy += value * value; worst = Math.max(worst, Math.abs(miss));
      });
      facts.textContent = `${2 ** bits} levels, ${page.number(data.scale[bits - 1])} apart. Rounding loses `
        + `${page.number((100 * error) / (energy || 1))} % of this channel's energy; the largest miss is ${page.number(worst)}. `
        + `Kurtosis ${page.number(data.kurtosis)}: ${data.remark}`;
      levels(bits); list(bits);
      root.dataset.bits = String(bits);
    }

    function levels(bits) {
      const bars = histogram(values), lines = [];
      for (let code = 0; code < 2 ** bits; code += 1) {
        const x = (code - data.offset[bits - 1]) * data.scale[bits - 1];
        lines.push({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper",
          line: { color: page.css("--mpq-warm"), width: bits > 6 ? 0.5 : 1.2 } });
      }
      const soft = page.css("--mpq-text-soft"), line = page.css("--mpq-line");
      page.react(plotly(), chart, [{ type: "bar", x: bars.x, y: bars.counts, width: bars.width, marker: { color: page.css("--mpq-accent") },
        hovertemplate: "%{x:.3g}: %{y} weights<extra></extra>" }],
      { margin: { l: 40, r: 8, t: 8, b: 38 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes: lines, bargap: 0,
        font: { color: soft, family: page.css("--font"), size: 11 }, uirevision: `${data.layer}-${data.channel}`,
        xaxis: { title: { text: "weight (lines: the levels it may take)" }, gridcolor: line, zerolinecolor: line,
          range: [bars.low - bars.width, bars.high + bars.width] },
        yaxis: { gridcolor: line, type: "log", title: { text: "count" } } },
      { responsive: true, displaylogo: false, displayModeBar: false });
      chart.setAttribute("aria-label", `Histogram of ${values.length} weights with ${2 ** bits} quantization levels`);
    }

    function list(bits) {
      const rows = Array.from(values, (value, index) => ({ index, value, to: rounded(bits, index), code: codes[(bits - 1) * values.length + index] }));
      if (order.value === "error") rows.sort((a, b) => Math.abs(b.value - b.to) - Math.abs(a.value - a.to));
      if (order.value === "size") rows.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
      const span = data.scale[bits - 1] || 1;
      table.replaceChildren(page.node("table", {},
        page.node("thead", {}, page.node("tr", {}, ...["place", "weight", "code", "becomes", "error", "error in steps"].map((name) => page.node("th", { scope: "col" }, name)))),
        page.node("tbody", {}, ...rows.slice(0, ROWS).map((row) => {
          const miss = row.to - row.value, share = Math.min(100, (100 * Math.abs(miss)) / span);
          return page.node("tr", {}, ...[row.index, page.number(row.value, 4), row.code.toString(2).padStart(bits, "0"), page.number(row.to, 4), page.number(miss, 3)]
            .map((text) => page.node("td", {}, String(text))),
          page.node("td", {}, page.node("i", { class: "mpq-bar", style: `width:${share * 0.6}px` }), ` ${page.number(Math.abs(miss) / span, 2)}`));
        }))));
    }

    page.on("theme", root, () => data && show(Number(slider.value)));
    let width = root.clientWidth;
    new ResizeObserver(() => { if (data && root.clientWidth && root.clientWidth !== width) { width = root.clientWidth; levels(Number(slider.value)); } }).observe(root);
    watch("channel", load);
    load();
  };
})();

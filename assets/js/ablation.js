// The table of kept runs: sort, filter, choose, pin a baseline, show only settings that differ.
// What is chosen is shared with the other views of the tab through page.ablation and the event "ablation".
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const shared = (page.ablation = page.ablation || { chosen: new Set(), box: null });
  const MARKS = { done: "", failed: "failed", waiting: "waiting" };

  page.kinds.ablation = ({ root, props, trigger, watch }) => {
    const { node, number } = page;
    const search = node("input", { type: "search", placeholder: "Filter, e.g. optimal seed=0", "aria-label": "Filter runs", class: "mpq-search", oninput: () => { draw(); tell(); } });
    const differing = node("input", { type: "checkbox", checked: true, onchange: () => draw() });
    const count = node("span", { class: "mpq-count", role: "status" });
    const clear = node("button", { type: "button", class: "mpq-small", onclick: () => { shared.chosen.clear(); shared.box = null; search.value = ""; page.emit("ablation", "table"); draw(); tell(); } }, "Show all");
    const bar = node("div", { class: "mpq-inline" }, search, node("label", {}, differing, " Only what differs"), count, clear);
    const box = node("div", { class: "mpq-runs", tabindex: 0, role: "region", "aria-label": "Kept runs" });
    const empty = node("p", { class: "mpq-hint" }, "Nothing is kept yet.");
    root.append(bar, empty, box);
    let board = null, sort = { key: null, falling: false }, told = "";

    const words = (run) => [run.title, run.state, run.note, ...board.settings.map(([key]) => `${key}=${run.settings[key] ?? ""}`)].join(" ").toLowerCase();
    const rank = (run, key) => (key === "title" ? run.title : key in (run.metrics || {}) ? run.metrics[key][0] : run.order[key]);

    function visible() {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const runs = board.runs.filter((run) => (!shared.box || shared.box.has(run.id)) && wanted.every((word) => words(run).includes(word)));
      if (sort.key !== null) {
        const sign = sort.falling ? -1 : 1;
        runs.sort((one, two) => {
          const a = rank(one, sort.key), b = rank(two, sort.key);
          if (a === undefined || a === null || b === undefined || b === null) return (a === undefined || a === null) - (b === undefined || b === null);
          return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
        });
      }
      const pinned = board.runs.find((run) => run.id === board.baseline);
      return pinned ? [pinned, ...runs.filter((run) => run !== pinned)] : runs;
    }

    function columns(runs) {
      if (!differing.checked) return board.settings;
      const told = (key) => runs.filter((run) => run.state !== "waiting" || run.settings[key]).map((run) => String(run.settings[key]));
      return board.settings.filter(([key]) => new Set(told(key)).size > 1);
    }
    const metrics = () => board.metrics.filter((info) => !differing.checked || !info.minor);

    function head(key, title, hint) {
      const now = sort.key === key ? (sort.falling ? "descending" : "ascending") : "none";
      const arrow = { ascending: " ▲", descending: " ▼", none: "" }[now];
      const button = node("button", { type: "button", title: hint, onclick: () => {
        sort = { key, falling: sort.key === key ? !sort.falling : key in measured };
        draw(); tell();
      } }, title + arrow);
      return node("th", { scope: "col", "aria-sort": now }, button);
    }
    let measured = {};

    // Counts, as of bytes, keep every figure.
    const figures = (count) => (Number.isInteger(count) && Math.abs(count) >= 1e4 ? count.toLocaleString("en") : number(count, 4));
    function value(entry, change, better) {
      if (!entry) return node("td", {}, "");
      const cell = node("td", {}, figures(entry[0]));
      if (entry[1] !== null) cell.append(node("small", {}, `${number(entry[1], 4)} to ${number(entry[2], 4)}`));
      if (change) {
        const sure = change[1] !== null && (change[1] > 0 || change[2] < 0);
        const mood = sure ? ((change[0] > 0) === better ? " is-good" : " is-bad") : "";
        const ends = change[1] === null ? "" : ` (${number(change[1], 2)} to ${number(change[2], 2)})`;
        cell.append(node("small", { class: `mpq-change${mood}` }, `${change[0] > 0 ? "+" : ""}${Number.isInteger(change[0]) ? figures(change[0]) : number(change[0], 3)}${ends}`));
      }
      return cell;
    }

    function row(run, shown) {
      const pinned = run.id === board.baseline;
      const tick = node("input", { type: "checkbox", "aria-label": `Choose ${run.title}`, onchange: (event) => {
        event.target.checked ? shared.chosen.add(run.id) : shared.chosen.delete(run.id);
        line.classList.toggle("is-chosen", event.target.checked); page.emit("ablation", "table"); tell();
      } });
      tick.checked = shared.chosen.has(run.id);
      const pin = node("button", { type: "button", class: "mpq-pin", "aria-pressed": String(pinned), title: pinned ? "Unpin the baseline" : "Pin as baseline: the others are shown against it",
        "aria-label": `Pin ${run.title} as baseline`, onclick: () => trigger("act", { baseline: pinned ? null : run.id }) }, pinned ? "★" : "☆");
      const usable = run.state === "done";
      const name = node("th", { scope: "row", title: run.title }, run.title, run.note ? node("small", {}, run.note) : "", run.own ? "" : node("small", {}, "shipped"));
      const line = node("tr", { class: `is-${run.state}${pinned ? " is-pinned" : ""}${tick.checked ? " is-chosen" : ""}`, "data-run": run.id },
        node("td", {}, usable || run.state === "failed" ? tick : ""), node("td", {}, usable ? pin : ""), name,
        ...shown.map(([key]) => node("td", {}, run.settings[key] ?? "")));
      if (usable) line.append(...metrics().map((info) => value(run.metrics[info.name], run.change[info.name], info.higher)));
      else line.append(node("td", { colspan: Math.max(1, metrics().length), class: "mpq-told" }, run.error || MARKS[run.state]));
      return line;
    }

    function draw() {
      const has = Boolean(board && board.runs.length);
      bar.hidden = box.hidden = !has; empty.hidden = has;
      if (!has) return;
      const runs = visible(), shown = columns(board.runs.filter((run) => runs.includes(run)));
      measured = Object.fromEntries(board.metrics.map((info) => [info.name, info]));
      const top = node("tr", {}, node("td", {}, node("span", { class: "mpq-sr" }, "Choose")), node("td", {}, node("span", { class: "mpq-sr" }, "Pin")), head("title", "Run", "Sort by name"),
        ...shown.map(([key, title]) => head(key, title, `Sort by ${title}`)),
        ...metrics().map((info) => head(info.name, info.unit ? `${info.title}, ${info.unit}` : info.title, info.hint)));
      const place = [box.scrollLeft, box.scrollTop];
      box.replaceChildren(node("table", {}, node("thead", {}, top), node("tbody", {}, ...runs.map((run) => row(run, shown)))));
      [box.scrollLeft, box.scrollTop] = place;
      const done = board.runs.filter((run) => run.state === "done").length;
      count.textContent = `${runs.length} of ${board.runs.length} shown${shared.box ? " (those in the box)" : ""}${done < board.runs.length ? `, ${done} done` : ""}`;
      clear.hidden = !(shared.box || shared.chosen.size || search.value);
      root.dataset.rows = String(runs.length);
    }

    // Python is told what is chosen and what is shown, once for each change.
    function tell() {
      if (!board) return;
      const known = new Set(board.runs.filter((run) => run.state !== "waiting").map((run) => run.id));
      const state = { chosen: [...shared.chosen].filter((id) => known.has(id)), shown: visible().map((run) => run.id).filter((id) => known.has(id)) };
      clear.hidden = !(shared.box || shared.chosen.size || search.value);
      const text = JSON.stringify(state);
      if (text !== told) { told = text; trigger("rows", state); }
    }

    function load() { board = page.payload(props.board); draw(); tell(); }
    page.on("ablation", root, (from) => { if (from !== "table") { draw(); tell(); } });
    watch("board", load);
    load();
  };

  // Quality against cost; a box drawn around points keeps those runs in the table, a click chooses one.
  page.kinds["ablation-scatter"] = ({ root, props, watch }) => {
    const plotly = () => window.moduleName || window.Plotly;
    const chart = page.node("div", { class: "mpq-chart" });
    const empty = page.node("div", { class: "mpq-empty" });
    const NONE = ["No runs yet", "Every combination of what is ticked becomes a cell. Press the button: each finished cell appears here as a point, quality against cost."];
    const lacks = (what) => [`No run shown has this: ${what}`, "Choose another measure, show other runs, or compute cells: those have every number."];
    root.append(chart, empty);
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", root.dataset.label || "chart");
    let width = 0, listening = false;

    async function draw() {
      const told = page.payload(props.fig), figure = told && told.data ? told : null;
      if (!root.clientWidth || !plotly()) return;
      root.classList.toggle("is-empty", !figure);
      empty.hidden = Boolean(figure);
      const [title, words] = told && told.lacking ? lacks(told.lacking) : NONE;
      if (!figure) empty.replaceChildren(page.node("b", {}, title), words);
      if (!figure) return;
      width = root.clientWidth;
      chart.style.height = `${root.dataset.height}px`;
      const line = page.css("--mpq-line"), text = page.css("--mpq-text-soft"), themed = page.themed(figure);
      const axis = { gridcolor: line, linecolor: line, zeroline: false, tickfont: { size: 11 } };
      const layout = { ...themed.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: width < 620 ? "pan" : "select",
        font: { family: page.css("--font") || "sans-serif", size: 12, color: text }, margin: { l: 56, r: 12, t: 44, b: 44 }, uirevision: figure.meta.view,
        hoverlabel: { bgcolor: page.css("--mpq-card"), bordercolor: line, font: { color: page.css("--mpq-text"), size: 12 }, align: "left" },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: text, activecolor: page.css("--mpq-accent") },
        xaxis: { ...axis, ...themed.layout.xaxis }, yaxis: { ...axis, ...themed.layout.yaxis } };
      await page.react(plotly(), chart, themed.data, layout, { responsive: true, displaylogo: false, displayModeBar: width < 620 ? false : "hover", modeBarButtonsToRemove: ["lasso2d", "autoScale2d"] });
      if (!listening) { listening = true; listen(); }
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    }

    function listen() {
      chart.on("plotly_selected", (event) => {
        if (!event || !event.range) return;
        shared.box = new Set(event.points.map((point) => point.customdata).filter(Boolean));
        page.emit("ablation", "scatter");
      });
      chart.on("plotly_deselect", () => { shared.box = null; page.emit("ablation", "scatter"); });
      chart.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        if (!id) return;
        shared.chosen.has(id) ? shared.chosen.delete(id) : shared.chosen.add(id);
        page.emit("ablation", "scatter");
      });
    }

    page.on("ablation", root, (from) => {
      if (from === "table" && !shared.box && listening) plotly().relayout(chart, { selections: [] });
    });
    new ResizeObserver(() => { if (root.clientWidth && root.clientWidth !== width) draw(); }).observe(root);
    page.on("theme", root, draw);
    watch("fig", () => { width = 0; draw(); });
    draw();
  };
})();

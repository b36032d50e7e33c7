// Two pictures made from the same noise: divider, side by side, difference, flicker, and a scrubber over the steps.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  const MODES = [["divider", "Divider"], ["side", "Side by side"], ["difference", "Difference"], ["flicker", "Flicker (F)"]];
  const FLICKER_MS = 700;

  const loadImage = (source) => new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture could not be decoded"));
    image.src = source;
  });

  page.kinds.compare = ({ root, props, watch }) => {
    const { node } = page;
    root.classList.add("mpq-pair");
    const range = (name, low, high, step, value, text) => {
      const input = node("input", { type: "range", min: low, max: high, step, value, id: `${root.dataset.name}-${name}`, oninput: () => render() });
      const output = node("output", { class: "mpq-big" });
      return { input, output, row: node("label", { class: "mpq-inline", for: `${root.dataset.name}-${name}` }, text, input, output) };
    };
    const buttons = MODES.map(([mode, label]) => node("button", { type: "button", class: "mpq-small", "data-mode": mode, onclick: () => setMode(mode) }, label));
    const left = node("select", { "aria-label": "Left picture", onchange: () => render(true) });
    const right = node("select", { "aria-label": "Right picture", onchange: () => render(true) });
    const divider = range("divider", 0, 100, 1, 50, "Divider"), gain = range("gain", 1, 32, 1, 4, "Difference times");
    const step = range("step", 0, 0, 1, 0, "Denoising step");
    step.input.onchange = () => { // the finished picture is no step
      const at = Number(step.input.value);
      if (!data || at >= data.columns - 1) return;
      page.scrub(at);
      page.emit("scrubbed", at);
    };
    const stage = node("div", { class: "mpq-stage", tabindex: 0, role: "group", "aria-label": "Pictures" });
    const strip = node("div", { class: "mpq-strip", role: "group", "aria-label": "Choose a sample" });
    const status = node("p", { class: "mpq-hint", "aria-live": "polite" });
    const body = node("div", { class: "mpq-pair" },
      node("div", { class: "mpq-modes", role: "group", "aria-label": "How to compare" }, ...buttons),
      node("div", { class: "mpq-inline" }, "Left", left, "Right", right), stage, divider.row, gain.row, step.row, status, strip);
    const empty = node("p", { class: "mpq-hint" }, "No pictures yet. Press “Draw the pictures”.");
    root.append(empty, body);

    let data = null, images = {}, mode = "divider", sample = 0, showRight = false, timer = null;
    const variants = () => [data.reference, ...data.variants];
    const chosen = (select) => variants().find((item) => item.key === select.value) || data.reference;

    async function load() {
      const next = page.payload(props.pair);
      body.hidden = !next; empty.hidden = Boolean(next);
      if (!next) { data = null; return; }
      const all = [next.reference, ...next.variants];
      const pictures = await Promise.all(all.map((item) => loadImage(item.src)));
      const before = [left.value, right.value];
      data = next;
      images = Object.fromEntries(all.map((item, index) => [item.key, pictures[index]]));
      for (const select of [left, right]) select.replaceChildren(...all.map((item) => node("option", { value: item.key }, item.title)));
      const keys = all.map((item) => item.key);
      left.value = keys.includes(before[0]) ? before[0] : keys[0];
      right.value = keys.includes(before[1]) && before[1] !== left.value ? before[1] : keys[1] || keys[0];
      sample = Math.min(sample, data.samples.length - 1);
      step.input.max = String(data.columns - 1);
      step.input.value = String(data.columns - 1);
      setMode(mode, true);
    }

    // Some variants keep only their finished picture: they show it at every step.
    const column = (item, wanted) => (item.columns ? Math.min(wanted, item.columns - 1) : wanted);

    function tile(item, row, wanted, label) {
      const size = data.tile, canvas = node("canvas", { width: size, height: size, role: "img", "aria-label": label });
      canvas.getContext("2d", { willReadFrequently: true }).drawImage(images[item.key], column(item, wanted) * size, row * size, size, size, 0, 0, size, size);
      return canvas;
    }

    function words(item) { return `${item.title}, ${data.samples[sample].text}`; }

    function figure(canvas, caption, note = "") {
      return node("figure", {}, canvas, node("figcaption", {}, node("span", {}, caption), node("span", {}, note)));
    }

    function setMode(next, fresh = false) {
      mode = next;
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
      divider.row.hidden = mode !== "divider"; gain.row.hidden = mode !== "difference";
      clearInterval(timer);
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      if (mode === "flicker" && !still) timer = setInterval(() => {
        if (!root.isConnected) return clearInterval(timer);
        if (root.offsetParent) { showRight = !showRight; render(); }
      }, FLICKER_MS);
      render(fresh);
    }

    function render(strips = false) {
      if (!data) return;
      const at = Number(step.input.value), a = chosen(left), b = chosen(right);
      const last = at === data.columns - 1;
      step.output.textContent = last ? "finished" : `${at + 1} of ${data.columns - 1}`;
      step.row.hidden = data.columns < 2;
      const first = tile(a, sample, at, words(a)), second = tile(b, sample, at, words(b));
      if (mode === "side") stage.replaceChildren(figure(first, a.title), figure(second, b.title));
      if (mode === "divider") stage.replaceChildren(overlay(first, second, a, b));
      if (mode === "flicker") stage.replaceChildren(figure(showRight ? second : first, showRight ? b.title : a.title, showRight ? "right" : "left"));
      const error = difference(first, second);
      if (mode === "difference") stage.replaceChildren(figure(error.canvas, `|${a.title} − ${b.title}| × ${gain.input.value}`), figure(second, b.title));
      gain.output.textContent = `× ${gain.input.value}`;
      divider.output.textContent = `${divider.input.value} %`;
      const moment = last ? "finished picture" : `what step ${at + 1} (t = ${data.timesteps[at] ?? "?"}) expects the picture to become`;
      status.textContent = `${data.samples[sample].text}, ${moment}: mean square difference ${page.number(error.mean, 3)} of 1`
        + (error.mean ? `, PSNR ${page.number(-10 * Math.log10(error.mean), 3)} dB.` : ", the same pixels.");
      root.dataset.mode = mode;
      root.dataset.step = String(at);
      if (strips) drawStrip();
      else [...strip.children].forEach((button, row) => button.setAttribute("aria-pressed", String(row === sample)));
    }

    function overlay(first, second, a, b) {
      const share = Number(divider.input.value);
      second.style.cssText = `position:absolute;inset:0;clip-path:inset(0 0 0 ${share}%)`;
      const line = node("div", { style: `position:absolute;top:0;bottom:0;left:${share}%;width:2px;background:#fff;box-shadow:0 0 0 1px #0008;pointer-events:none` });
      const box = node("div", { style: "position:relative" }, first, second, line);
      const move = (event) => {
        const place = box.getBoundingClientRect();
        divider.input.value = String(Math.round(Math.max(0, Math.min(1, (event.clientX - place.left) / place.width)) * 100));
        second.style.clipPath = `inset(0 0 0 ${divider.input.value}%)`;
        line.style.left = `${divider.input.value}%`;
        divider.output.textContent = `${divider.input.value} %`;
      };
      box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); move(event); });
      box.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
      return figure(box, `◀ ${a.title}`, `${b.title} ▶`);
    }

    function difference(first, second) {
      const size = data.tile, canvas = node("canvas", { width: size, height: size, role: "img", "aria-label": "Absolute difference" });
      const get = (source) => source.getContext("2d").getImageData(0, 0, size, size).data;
      const one = get(first), two = get(second), out = new ImageData(size, size), times = Number(gain.input.value);
      let sum = 0;
      for (let place = 0; place < one.length; place += 1) {
        if (place % 4 === 3) { out.data[place] = 255; continue; }
        const miss = Math.abs(one[place] - two[place]);
        sum += (miss / 255) ** 2;
        out.data[place] = Math.min(255, miss * times);
      }
      canvas.getContext("2d").putImageData(out, 0, 0);
      return { canvas, mean: sum / (size * size * 3) };
    }

    function drawStrip() {
      const b = chosen(right);
      strip.replaceChildren(...data.samples.map((item, row) => node("button",
        { type: "button", "aria-pressed": String(row === sample), title: item.text, onclick: () => { sample = row; render(); } },
        tile(b, row, data.columns - 1, words(b)), node("span", {}, item.label))));
    }

    root.addEventListener("keydown", (event) => {
      if (!data || event.ctrlKey || event.metaKey || event.target.tagName === "SELECT") return;
      const key = event.key.toLowerCase();
      if (key === "f") { if (mode !== "flicker") setMode("flicker"); showRight = !showRight; render(); event.preventDefault(); }
      if (event.target !== stage) return;
      const move = { arrowleft: -1, arrowright: 1 }[key];
      if (move && mode === "divider") { divider.input.value = String(Number(divider.input.value) + 2 * move); render(); event.preventDefault(); }
    });
    page.on("step", root, (at) => {
      if (!data || data.columns < 2 || Number(step.input.value) === at) return;
      step.input.value = String(Math.min(at, data.columns - 2));
      render();
    });
    watch("pair", load);
    load();
  };
})();

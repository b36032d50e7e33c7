// Shared by every linked view: registry of view kinds, one selection for the page, colours from the style sheet.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};
  page.selection = page.selection || { layer: null, channel: null };
  page.bus = page.bus || new EventTarget();

  page.mount = (view) => {
    view.root = view.element.querySelector(".mpq-view");
    page.kinds[view.root.dataset.kind](view);
  };

  // Parse a prop that carries JSON; an empty prop is null. The same text is parsed once.
  page.payload = (text) => (text ? JSON.parse(text) : null);

  page.emit = (name, detail) => page.bus.dispatchEvent(new CustomEvent(name, { detail }));
  page.on = (name, root, callback) => {
    const listener = (event) => {
      if (!root.isConnected) return page.bus.removeEventListener(name, listener); // the tab was rebuilt
      callback(event.detail);
    };
    page.bus.addEventListener(name, listener);
  };

  page.select = (layer, channel) => {
    page.selection = { layer, channel };
    page.emit("selection", page.selection);
  };

  // What gradio's components leave without a role or a name, so that a screen reader can tell what they are.
  function mend() {
    for (const icon of document.querySelectorAll(".header-icons div[aria-label]:not([role]), .empty[aria-label]:not([role])")) icon.setAttribute("role", "img");
    for (const box of document.querySelectorAll("input.search-input:not([aria-label])")) box.setAttribute("aria-label", box.title || "Search the table");
  }
  let mending = null;
  if (!page.mends) {
    page.mends = new MutationObserver(() => { mending ??= requestAnimationFrame(() => { mending = null; mend(); }); });
    const begin = () => page.mends.observe(document.body, { childList: true, subtree: true });
    document.body ? begin() : document.addEventListener("DOMContentLoaded", begin);
  }

  // One denoising step for the whole page: whoever moves it, the other sliders and the markers of charts follow.
  page.step = page.step ?? null;
  page.scrub = (at) => {
    if (at === page.step) return;
    page.step = at;
    page.emit("step", at);
  };

  // Where a page has a <base>, plotly writes the whole address into references to its own clips and gradients, and they
  // point nowhere once the link in the address bar follows a slider. Without it they are "#name", which always holds.
  page.react = (plotly, ...what) => {
    const base = document.querySelector("base[href]"), href = base?.getAttribute("href");
    base?.removeAttribute("href");
    try { return plotly.react(...what); } finally { base?.setAttribute("href", href); }
  };

  page.css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  // Replace every "var(--x)" inside a figure by its current colour, so that dark and light share one figure.
  page.themed = (node) => {
    if (typeof node === "string") {
      return node.startsWith("var(--") ? page.css(node.slice(4, -1)) : node;
    }
    if (Array.isArray(node)) return node.map(page.themed);
    if (node && typeof node === "object" && !ArrayBuffer.isView(node)) {
      return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, page.themed(value)]));
    }
    return node;
  };

  page.bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  page.floats = (base64) => new Float32Array(page.bytes(base64).buffer);

  page.number = (value, digits = 3) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "n/a";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size < 1e-3 || size >= 1e5 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  };

  page.node = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };

  // Dark and light can change at any time: charts listen to this and draw again.
  if (!page.watchingTheme) {
    page.watchingTheme = true;
    const start = () => new MutationObserver(() => page.emit("theme")).observe(document.body, { attributeFilter: ["class"] });
    document.body ? start() : addEventListener("DOMContentLoaded", start);
  }
})();

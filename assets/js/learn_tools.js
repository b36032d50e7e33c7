// What the widgets of the lessons are built from: controls with labels, drawings in SVG, words from the lesson.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.lessons = page.lessons || {};
  const SVG = "http://www.w3.org/2000/svg";

  page.svg = (tag, attributes = {}, ...children) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  page.percent = (share, digits = 2) => `${page.number(100 * share, digits)} %`;

  // A sentence with {names} filled in; a sentence that is missing is a mistake of ours, not of the visitor.
  page.speaker = (words) => (key, values = {}) => {
    if (!(key in words)) throw new Error(`the lesson has no words for "${key}"`);
    return words[key].replace(/\{(\w+)\}/g, (_, name) => {
      if (!(name in values)) throw new Error(`"${key}" asks for {${name}}`);
      return values[name];
    });
  };

  // The tools one widget gets. `redraw` runs after every control; `goal(true)` reports that the task is solved.
  page.toolbox = (root, lesson, goal) => {
    const { node, svg } = page, say = page.speaker(lesson.words);
    const controls = node("div", { class: "learn-controls" }), stage = node("div", { class: "learn-stage" });
    const facts = node("p", { class: "learn-facts", "aria-live": "polite" });
    root.replaceChildren(stage, controls, facts);
    const tools = { root, say, goal, stage, controls, number: page.number, percent: page.percent, math: page.math };
    let draw = () => {};
    const id = (name) => `lesson-${lesson.id}-${name}`;
    tools.start = (callback) => { draw = callback; draw(); };
    tools.redraw = () => draw();

    tools.slider = (name, { min, max, step = 1, value, show = String }) => {
      const output = node("output", { for: id(name) });
      const input = node("input", { type: "range", id: id(name), min, max, step, value, oninput: () => { tell(); draw(); } });
      const tell = () => {
        output.textContent = show(Number(input.value));
        input.setAttribute("aria-valuetext", output.textContent);
      };
      controls.append(node("label", { class: "learn-slider", for: id(name) }, node("span", {}, say(name)), input, output));
      tell();
      return { get value() { return Number(input.value); }, set value(to) { input.value = String(to); tell(); }, input };
    };
    // One of several, as radio buttons; options are keys of the lesson's words.
    tools.choice = (name, options, value) => {
      const inputs = options.map((option) => node("input", { type: "radio", name: id(name), id: id(option), value: option,
        checked: option === value, onchange: () => draw() }));
      controls.append(node("fieldset", { class: "learn-choice" }, node("legend", {}, say(name)),
        ...inputs.map((input) => node("label", { for: input.id }, input, say(input.value)))));
      return { get value() { return inputs.find((input) => input.checked).value; } };
    };
    tools.check = (name, checked) => {
      const input = node("input", { type: "checkbox", id: id(name), checked, onchange: () => draw() });
      controls.append(node("label", { class: "learn-check", for: id(name) }, input, say(name)));
      return { get value() { return input.checked; } };
    };
    tools.button = (name, action) => {
      const made = node("button", { type: "button", class: "learn-button", id: id(name), onclick: action }, say(name));
      controls.append(made);
      return made;
    };
    tools.facts = (text) => { facts.textContent = text; };

    // Figures in cards: [[label key, text, "good" | "bad" | ""]].
    const cards = node("div", { class: "learn-cards" });
    tools.cards = (list) => {
      if (!cards.isConnected) stage.append(cards);
      cards.replaceChildren(...list.map(([label, text, mood = ""]) =>
        node("div", { class: `learn-card ${mood && `is-${mood}`}` }, node("small", {}, say(label)), node("b", {}, text))));
    };

    // A drawing that keeps its proportions; `label` says in words what it shows.
    tools.drawing = (width, height) => {
      const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "learn-drawing", role: "img" });
      stage.append(made);
      return { width, height, show: (label, ...children) => { made.setAttribute("aria-label", label); made.replaceChildren(...children); } };
    };
    tools.text = (x, y, words, attributes = {}) => svg("text", { x, y, class: "learn-text", ...attributes }, words);
    tools.line = (x1, y1, x2, y2, kind = "") => svg("line", { x1, y1, x2, y2, class: `learn-line ${kind}` });
    tools.bar = (x, y, width, height, kind = "") =>
      svg("rect", { x, y, width: Math.max(width, 0), height: Math.max(height, 0), rx: 2, class: `learn-fill ${kind}` });
    tools.dot = (x, y, radius, kind = "") => svg("circle", { cx: x, cy: y, r: radius, class: `learn-fill ${kind}` });
    tools.path = (points, kind = "") => svg("polyline", { points: points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" "), class: `learn-curve ${kind}` });
    return tools;
  };
})();

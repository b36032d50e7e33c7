// Which one is quantized? A shuffled pair from the same noise; the score comes with its interval.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};

  page.kinds.quiz = ({ root, props, watch, trigger }) => {
    const { node } = page;
    let data = null, say = null, images = {}, deck = [], asked = null, score = { right: 0, tries: 0 };
    const loadImage = (source) => new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("a picture could not be decoded"));
      image.src = source;
    });

    async function load() {
      const words = page.payload(props.words), next = page.payload(props.pair);
      if (!words || data) return;
      say = page.speaker(words);
      if (!next) { root.replaceChildren(node("p", { class: "learn-facts" }, say("none"))); return; }
      data = next;
      const all = [data.reference, ...data.variants];
      const pictures = await Promise.all(all.map((item) => loadImage(item.src)));
      images = Object.fromEntries(all.map((item, index) => [item.key, pictures[index]]));
      build();
    }

    const against = node("select", { onchange: () => restart() });
    const stage = node("div", { class: "quiz-pair" }), answer = node("p", { class: "quiz-answer", role: "status" });
    const result = node("p", { class: "learn-facts", role: "status" }), onward = node("div", { class: "learn-onward" });

    function build() {
      against.replaceChildren(...data.variants.map((item) => node("option", { value: item.key }, item.title)));
      root.replaceChildren(node("div", { class: "learn-lesson quiz" }, node("h2", {}, say("question")), node("p", { class: "quiz-intro" }, say("intro")),
        node("label", { class: "mpq-inline" }, say("against"), against), stage, answer, onward, result));
      document.addEventListener("keydown", onKey);
      restart();
    }

    // Wherever the focus is, as long as the quiz is what one sees.
    function onKey(event) {
      if (!root.isConnected) return document.removeEventListener("keydown", onKey);
      const place = { ArrowLeft: 0, ArrowRight: 1 }[event.key];
      if (place === undefined || !root.offsetParent || asked.answered || /^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
      event.preventDefault();
      choose(place);
    }

    function restart() { score = { right: 0, tries: 0 }; deck = []; ask(false); }

    function shuffled(count) {
      const order = Array.from({ length: count }, (_, index) => index);
      for (let i = count - 1; i > 0; i -= 1) { const j = Math.floor(Math.random() * (i + 1)); [order[i], order[j]] = [order[j], order[i]]; }
      return order;
    }

    // The finished picture is the last tile of a sample's row.
    function picture(key, row, label) {
      const size = data.tile, image = images[key], canvas = node("canvas", { width: size, height: size, role: "img", "aria-label": label });
      canvas.getContext("2d").drawImage(image, image.naturalWidth - size, row * size, size, size, 0, 0, size, size);
      return canvas;
    }

    function ask(focus = true) {
      if (!deck.length) deck = shuffled(data.samples.length);
      const row = deck.pop(), side = Math.random() < 0.5 ? 0 : 1;
      asked = { row, side, answered: false };
      const sides = ["left", "right"];
      const buttons = sides.map((name, place) => node("button", { type: "button", class: "quiz-choice", "data-side": name, onclick: () => choose(place) },
        picture(place === side ? against.value : data.reference.key, row, `${say(name)}, ${data.samples[row].label}`), node("span", {}, say(name))));
      stage.replaceChildren(...buttons);
      answer.textContent = "";
      onward.replaceChildren();
      tell();
      if (focus) buttons[0].focus();
    }

    function choose(place) {
      if (asked.answered) return;
      asked.answered = true;
      const right = place === asked.side, title = data.variants.find((item) => item.key === against.value).title;
      score = { right: score.right + Number(right), tries: score.tries + 1 };
      [...stage.children].forEach((button, index) => {
        button.disabled = true;
        button.classList.toggle("is-quantized", index === asked.side);
        button.setAttribute("aria-pressed", String(index === place));
      });
      answer.textContent = say(right ? "correct" : "wrong", { side: say(asked.side ? "right_side" : "left_side"), title });
      answer.className = `quiz-answer ${right ? "is-good" : "is-bad"}`;
      const next = node("button", { type: "button", class: "learn-button", onclick: () => ask() }, say("next"));
      onward.replaceChildren(next, node("button", { type: "button", class: "mpq-small", onclick: () => restart() }, say("again")));
      next.focus();
      tell();
    }

    function tell() {
      const { right, tries } = score;
      root.dataset.tries = String(tries);
      if (!tries) { result.textContent = say("start"); return; }
      const [low, high] = page.math.wilson(right, tries), percent = (share) => `${Math.round(100 * share)} %`;
      result.textContent = `${say("score", score)}. ${say("interval", { low: percent(low), high: percent(high) })} ${say(low > 0.5 ? "verdict_yes" : high < 0.5 ? "verdict_no" : "verdict_open")}`;
    }

    watch(["pair", "words"], load);
    load();
    if (!data) trigger("ask", {});
  };
})();

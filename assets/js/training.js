// The same few pictures while the student learns: full precision, before training, and any moment since.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  page.kinds = page.kinds || {};

  page.kinds.training = ({ root, props, watch }) => {
    const { node } = page;
    const strip = () => {
      const image = node("img", { alt: "" }), words = node("span", {}), note = node("b", {});
      return { image, words, note, row: node("figure", {}, node("figcaption", {}, words, note), image) };
    };
    const reference = strip(), before = strip(), now = strip();
    const input = node("input", { type: "range", min: 0, max: 0, step: 1, value: 0, id: `${root.dataset.name}-moment`, oninput: () => render() });
    const output = node("output", { class: "mpq-big", for: input.id });
    const slider = node("label", { class: "mpq-inline", for: input.id }, "Training", input, output);
    const status = node("p", { class: "mpq-sr", "aria-live": "polite" });
    const body = node("div", { class: "mpq-moments" }, now.row, slider, before.row, reference.row, status);
    const empty = node("p", { class: "mpq-hint" }, "Four pictures are drawn every so many steps, always from the same noise.");
    root.append(empty, body);
    let data = null;

    const decibel = (value) => (value === null || value === undefined ? "the same pixels" : `${page.number(value, 3)} dB to full precision`);

    // The strip stays at the newest moment until somebody moves the slider back.
    function load() {
      const next = page.payload(props.previews), last = Number(input.value) >= Number(input.max);
      const follow = !data || !next || data.run !== next.run || last;
      data = next;
      body.hidden = !data; empty.hidden = Boolean(data);
      if (!data) return;
      input.max = String(Math.max(0, data.moments.length - 1));
      if (follow) input.value = input.max;
      render();
    }

    function show(part, source, words, note) {
      if (part.image.src !== source) part.image.src = source;
      part.image.alt = `${words}: ${data.names.join("; ")}`;
      part.words.textContent = words;
      part.note.textContent = note;
    }

    function render() {
      const moments = data.moments, moment = moments[Number(input.value)];
      show(reference, data.reference, "Full precision", data.names.map((name) => name.split(",")[0]).join(" · "));
      now.row.hidden = !moment; slider.hidden = moments.length < 2;
      before.row.hidden = !moment || moments[0].step !== 0;
      if (!moment) return;
      const words = moment.step ? `Fine-tuned, step ${moment.step}` : "Fine-tuned, no step yet";
      if (!before.row.hidden) show(before, moments[0].src, "Before training", decibel(moments[0].psnr));
      show(now, moment.src, words, decibel(moment.psnr));
      output.textContent = `step ${moment.step}`;
      input.setAttribute("aria-valuetext", `step ${moment.step}`);
      status.textContent = `${words}: ${decibel(moment.psnr)}`;
      root.dataset.moments = String(moments.length);
      root.dataset.step = String(moment.step);
    }

    watch("previews", load);
    load();
  };
})();

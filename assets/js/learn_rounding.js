// Each file of lessons waits in window.mpqdmChapters until assets/js/learn.js opens it: scripts load in any order.
// Lessons on rounding: the levels, one grid for each channel, kurtosis, and grids of one and two bits.
(window.mpqdmChapters = window.mpqdmChapters || []).push(({ lessons, math, percent, number }) => {

  // Levels of a grid as lines, values as dots above the axis; both in the drawing's own units.
  function numberLine(tools, place, values, q, top, bottom) {
    const rounded = math.rounded(values, q), marks = [];
    for (const level of math.levels(q)) marks.push(tools.line(place(level), top, place(level), bottom, "is-level"));
    values.forEach((value, index) => {
      const y = bottom - 12 - ((index * 37) % 90) / 90 * (bottom - top - 30);
      marks.push(tools.line(place(value), y, place(rounded[index]), y, "is-soft"), tools.dot(place(value), y, 2.2));
    });
    return marks;
  }

  lessons.rounding = (tools) => {
    const values = math.gaussians(11, 400);
    values[7] = 5; values[23] = -4.5; // two outliers
    const LIMIT = 0.075, most = math.absmax(values), drawing = tools.drawing(640, 210);
    const bits = tools.slider("bits", { min: 1, max: 8, value: 3 });
    const range = tools.slider("range", { min: 20, max: 100, step: 5, value: 100, show: (share) => `${share} %` });
    tools.start(() => {
      const reach = (most * range.value) / 100, q = math.cover(-reach, reach, bits.value, "mid-rise");
      const loss = math.loss(values, q), clipped = values.filter((value) => Math.abs(value) > reach).length;
      const place = (value) => 320 + (value / most) * 300;
      drawing.show(tools.say("drawing", { levels: 2 ** bits.value, count: values.length }),
        tools.bar(place(-reach), 8, place(reach) - place(-reach), 184, "is-range"),
        ...numberLine(tools, place, values, q, 8, 192), tools.line(14, 192, 626, 192));
      tools.cards([["levels", String(2 ** bits.value)], ["step", number(q.scale)], ["clipped", String(clipped)],
        ["loss", percent(loss), loss < LIMIT ? "good" : "bad"]]);
      tools.goal(bits.value === 3 && loss < LIMIT);
    });
  };

  lessons.channels = (tools) => {
    const channels = Array.from({ length: 8 }, (_, row) => math.gaussians(100 + row, 32).map((value) => value * 0.12 * 1.7 ** row));
    const all = channels.flat(), most = math.absmax(all), drawing = tools.drawing(640, 264);
    const one = math.search, SCALE_BITS = 16;
    const shared = tools.choice("grids", ["tensor", "channel"], "tensor");
    const bits = tools.slider("bits", { min: 2, max: 8, value: 3 });
    tools.start(() => {
      const each = shared.value === "channel", whole = one(all, bits.value, "mid-rise");
      const grids = channels.map((values) => (each ? one(values, bits.value, "mid-rise") : whole));
      const losses = channels.map((values, row) => math.loss(values, grids[row])), worst = Math.max(...losses);
      const effective = bits.value + (SCALE_BITS * (each ? channels.length : 1)) / all.length;
      const place = (value) => 262 + (value / most) * 210, marks = [];
      channels.forEach((values, row) => {
        const y = 20 + row * 30;
        for (const level of math.levels(grids[row])) if (Math.abs(level) <= most) marks.push(tools.line(place(level), y - 10, place(level), y + 10, "is-level"));
        for (const value of values) marks.push(tools.dot(place(value), y, 2.4));
        marks.push(tools.text(8, y + 4, tools.say("row", { row })),
          tools.bar(490, y - 7, Math.min(losses[row], 1) * 80, 14, losses[row] < 0.05 ? "is-good" : "is-warm"),
          tools.text(632, y + 4, losses[row] > 9.99 ? "> 999 %" : percent(losses[row]), { "text-anchor": "end" }));
      });
      drawing.show(tools.say("drawing", { worst: percent(worst) }), ...marks);
      tools.cards([["effective", number(effective)], ["worst", percent(worst), worst < 0.05 ? "good" : "bad"]]);
      tools.goal(worst < 0.05 && effective <= 4.6);
    });
  };

  lessons.kurtosis = (tools) => {
    const COUNT = 256, core = math.gaussians(5, COUNT), spread = math.gaussians(6, COUNT);
    const unit = (values) => { const size = Math.sqrt(math.energy(values) / COUNT); return values.map((value) => value / size); };
    const plain = unit(math.gaussians(9, COUNT)), drawing = tools.drawing(640, 230);
    const error = (values, bits) => math.squaredError(values, math.rounded(values, math.search(values, bits, "mid-rise"))) / COUNT;
    const tail = tools.slider("tail", { min: 0, max: 1.2, step: 0.1, value: 0.6, show: (value) => number(value) });
    const size = tools.slider("size", { min: 0.2, max: 2, step: 0.1, value: 1, show: (value) => `× ${number(value)}` });
    tools.start(() => {
      const tailed = unit(core.map((value, index) => value * Math.exp(tail.value * spread[index]))).map((value) => value * size.value);
      const rows = [["tailed", tailed], ["plain", plain]].map(([name, values]) =>
        ({ name, values, kurtosis: math.kurtosis(values), saved: error(values, 3) - error(values, 4) }));
      const most = Math.max(...rows.map((row) => math.absmax(row.values))), place = (value) => 320 + (value / most) * 250, marks = [];
      rows.forEach((row, index) => {
        const base = 100 + index * 110, bins = new Array(81).fill(0);
        for (const value of row.values) bins[Math.round((value / most) * 40) + 40] += 1;
        const tall = Math.max(...bins);
        bins.forEach((count, bin) => marks.push(tools.bar(place(((bin - 40.5) / 40) * most), base - (count / tall) * 78, 5.4, (count / tall) * 78, index ? "is-second" : "")));
        marks.push(tools.line(60, base, 580, base), tools.text(8, base - 74, tools.say(row.name)));
      });
      drawing.show(tools.say("drawing"), ...marks);
      const byTail = rows[0].kurtosis > rows[1].kurtosis ? 0 : 1, byGain = rows[0].saved > rows[1].saved ? 0 : 1;
      tools.cards([["kurtosis_tailed", number(rows[0].kurtosis)], ["kurtosis_plain", number(rows[1].kurtosis)],
        ["saved_tailed", number(rows[0].saved)], ["saved_plain", number(rows[1].saved)]]);
      tools.facts(tools.say(byTail === byGain ? "agree" : "disagree", { tail: tools.say(rows[byTail].name), gain: tools.say(rows[byGain].name) }));
      tools.goal(byTail === 0 && byGain === 1 && rows[0].kurtosis > 1.5 * rows[1].kurtosis);
    });
  };

  lessons.grids = (tools) => {
    const half = math.gaussians(21, 256), values = [...half, ...half.map((value) => -value)];
    const most = math.absmax(values), drawing = tools.drawing(640, 220), bins = new Array(61).fill(0);
    for (const value of values) bins[Math.round((value / most) * 30) + 30] += 1;
    const tall = Math.max(...bins), found = {};
    const saved = (bits) => {
      found[bits] = found[bits] || ["affine", "mid-rise"].map((grid) => math.search(values, bits, grid));
      const [affine, middle] = found[bits].map((q) => math.loss(values, q));
      return { affine, middle, share: 1 - middle / affine };
    };
    const bits = tools.slider("bits", { min: 1, max: 6, value: 1 });
    let answered = "";
    const smallest = () => [1, 2, 3, 4, 5, 6].find((width) => saved(width).share < 0.1);
    tools.button("answer", () => { answered = bits.value === smallest() ? "right" : "wrong"; tools.redraw(); answered = ""; });
    tools.start(() => {
      const now = saved(bits.value), place = (value) => 320 + (value / most) * 290, marks = [];
      bins.forEach((count, bin) => marks.push(tools.bar(place(((bin - 30.5) / 30) * most), 110 - (count / tall) * 70, 8.6, (count / tall) * 70, "is-pale"),
        tools.bar(place(((bin - 30.5) / 30) * most), 110, 8.6, (count / tall) * 70, "is-pale")));
      found[bits.value].forEach((q, index) => {
        for (const level of math.levels(q)) marks.push(tools.line(place(level), index ? 112 : 24, place(level), index ? 196 : 108, index ? "is-level is-second" : "is-level"));
        marks.push(tools.text(10, index ? 206 : 22, tools.say(index ? "mid_rise" : "affine")));
      });
      drawing.show(tools.say("drawing", { bits: bits.value }), tools.line(10, 110, 630, 110), ...marks);
      tools.cards([["loss_affine", percent(now.affine)], ["loss_mid_rise", percent(now.middle)], ["saved", percent(now.share), now.share >= 0.1 ? "good" : ""]]);
      tools.facts(answered ? tools.say(answered, { bits: bits.value }) : "");
      if (answered) tools.goal(answered === "right");
    });
  };
});

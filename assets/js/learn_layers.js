// Lessons on whole layers: pre-scaling, the budget as an exchange, what normalisation does to errors, timesteps.
(window.mpqdmChapters = window.mpqdmChapters || []).push(({ lessons, math, percent, number, node }) => {

  lessons.prescale = (tools) => {
    const INPUTS = 8, BITS = 4, sizes = [1, 1, 14, 1, 0.7, 20, 1.2, 1], weightSizes = [1, 1, 0.3, 1, 1.3, 0.2, 1, 1];
    const inputs = Array.from({ length: 64 }, (_, row) => math.gaussians(300 + row, INPUTS).map((value, i) => value * sizes[i]));
    const weights = Array.from({ length: 6 }, (_, row) => math.gaussians(500 + row, INPUTS).map((value, i) => value * weightSizes[i]));
    const product = (left, right) => left.flatMap((a) => right.map((b) => math.sum(a.map((value, i) => value * b[i]))));
    const column = (rows, i) => math.absmax(rows.map((row) => row[i])), each = Array.from({ length: INPUTS }, (_, i) => i);
    const inputMax = each.map((i) => column(inputs, i)), weightMax = each.map((i) => column(weights, i)), exact = product(inputs, weights);
    const quantized = (factors) => {
      const scaled = inputs.map((row) => row.map((value, i) => value * factors[i])), flat = scaled.flat();
      const q = math.cover(Math.min(...flat), Math.max(...flat), BITS, "affine");
      const rows = weights.map((row) => row.map((value, i) => value / factors[i]));
      return math.squaredError(exact, product(scaled.map((row) => math.rounded(row, q)), rows.map((row) => math.rounded(row, math.search(row, BITS, "mid-rise"))))) / math.energy(exact);
    };
    const before = quantized(each.map(() => 1)), drawing = tools.drawing(640, 220);
    const on = tools.check("on", false);
    const alpha = tools.slider("alpha", { min: 0, max: 1, step: 0.1, value: 0, show: (value) => number(value) });
    tools.start(() => {
      const factors = on.value ? math.prescale(weightMax, inputMax, alpha.value) : each.map(() => 1), loss = quantized(factors), marks = [];
      alpha.input.disabled = !on.value;
      const bars = (name, maxima, x) => {
        const tall = Math.max(...maxima);
        marks.push(tools.text(x, 18, tools.say(name)), tools.line(x, 190, x + 290, 190));
        maxima.forEach((value, i) => marks.push(tools.bar(x + 6 + i * 35, 190 - (value / tall) * 150, 24, (value / tall) * 150, sizes[i] > 10 ? "is-warm" : ""),
          tools.text(x + 18 + i * 35, 206, String(i), { "text-anchor": "middle" })));
      };
      bars("inputs", inputMax.map((value, i) => value * factors[i]), 14);
      bars("weights", weightMax.map((value, i) => value / factors[i]), 336);
      drawing.show(tools.say("drawing"), ...marks);
      tools.cards([["before", percent(before)], ["now", percent(loss), loss < 0.1 * before ? "good" : "bad"], ["ratio", `${number(before / loss, 2)} ×`]]);
      tools.goal(on.value && loss < 0.1 * before);
    });
  };

  // Eight made-up channels: their errors at 1 to 8 bits come from rounding them.
  function market() {
    const sizes = [0.2, 0.35, 0.5, 0.8, 1.1, 1.6, 2.4, 3.4], tails = [0.5, 0, 0.7, 0.2, 0, 0.4, 0, 0.3];
    return sizes.map((size, row) => {
      const spread = math.gaussians(800 + row, 128);
      const values = math.gaussians(700 + row, 128).map((value, i) => value * Math.exp(tails[row] * spread[i]) * size);
      return [1, 2, 3, 4, 5, 6, 7, 8].map((bits) => math.squaredError(values, math.rounded(values, math.search(values, bits, "mid-rise"))) / values.length);
    });
  }

  lessons.budget = (tools) => {
    const errors = market(), START = 3, total = START * errors.length, bits = errors.map(() => START);
    const uniform = math.cost(errors, bits), best = math.cost(errors, math.spend(errors, total)), WITHIN = 1.05;
    const table = node("div", { class: "learn-market", role: "group", "aria-label": tools.say("table") });
    tools.stage.append(table);
    const rows = errors.map((row, channel) => {
      const change = (by) => { bits[channel] += by; tools.redraw(); };
      const less = node("button", { type: "button", "aria-label": tools.say("take", { channel }), onclick: () => change(-1) }, "−");
      const more = node("button", { type: "button", "aria-label": tools.say("give", { channel }), onclick: () => change(1) }, "+");
      const shown = node("output", {}), back = node("i", { class: "is-back" }), next = node("i", { class: "is-next" });
      const backText = node("small", {}), nextText = node("small", {});
      table.append(node("div", { class: "learn-trade" }, node("span", {}, tools.say("channel", { channel })), less, shown, more,
        node("span", { class: "learn-price" }, back, backText), node("span", { class: "learn-price" }, next, nextText)));
      return { row, less, more, shown, back, next, backText, nextText };
    });
    tools.button("reset", () => { bits.fill(START); tools.redraw(); });
    tools.start(() => {
      const left = total - math.sum(bits), now = math.cost(errors, bits);
      const cost = (row, b) => (b > 1 ? row[b - 2] - row[b - 1] : Infinity), gain = (row, b) => (b < 8 ? row[b - 1] - row[b] : 0);
      const most = Math.max(...rows.map(({ row }, c) => gain(row, bits[c])), 1e-9), width = (value) => `${Math.min(100, (100 * Math.min(value, most)) / most)}px`;
      rows.forEach((line, channel) => {
        const b = bits[channel], price = cost(line.row, b), worth = gain(line.row, b);
        line.shown.textContent = tools.say("bits", { bits: b });
        line.less.disabled = b <= 1; line.more.disabled = b >= 8 || left <= 0;
        line.back.style.width = b > 1 ? width(price) : "0"; line.next.style.width = width(worth);
        line.backText.textContent = b > 1 ? tools.say("costs", { error: number(price) }) : tools.say("nothing_to_take");
        line.nextText.textContent = b < 8 ? tools.say("saves", { error: number(worth) }) : tools.say("full");
      });
      tools.cards([["left", String(left)], ["average", number(math.sum(bits) / bits.length)], ["uniform", number(uniform)],
        ["now", number(now), now <= WITHIN * best ? "good" : now < uniform ? "" : "bad"]]);
      tools.facts(left > 0 ? tools.say("spare", { left }) : tools.say("share", { share: percent(now / uniform) }));
      tools.goal(left >= 0 && now <= WITHIN * best);
    });
  };

  // Two feature maps of a small picture: a strong smooth one and a weak one with the details.
  function maps(side) {
    const strong = [], weak = [];
    for (let y = 0; y < side; y += 1) for (let x = 0; x < side; x += 1) {
      const u = x / side - 0.5, w = y / side - 0.5;
      strong.push(6 * (w + 0.6 * Math.exp(-((u - 0.2) ** 2 + (w + 0.2) ** 2) * 14)));
      const away = Math.hypot(u + 0.05, w - 0.05), around = Math.atan2(w, u);
      weak.push(0.3 * Math.tanh(9 * (0.28 + 0.09 * Math.cos(5 * around + 1.5) - away)) + 0.06 * Math.sin(22 * u) * Math.cos(18 * w));
    }
    return { strong, weak };
  }
  const normalised = (values) => {
    const middle = math.mean(values), size = Math.sqrt(math.mean(values.map((value) => (value - middle) ** 2)));
    return values.map((value) => (value - middle) / size);
  };

  lessons.picture = (tools) => {
    const SIDE = 48, TOTAL = 8, { strong, weak } = maps(SIDE), wanted = [normalised(strong), normalised(weak)], made = {};
    const at = (bits) => {
      if (!made[bits]) {
        const pair = [[strong, bits], [weak, TOTAL - bits]].map(([values, width]) => math.rounded(values, math.search(values, width, "mid-rise")));
        const after = pair.map(normalised);
        made[bits] = { after, layer: (math.squaredError(strong, pair[0]) + math.squaredError(weak, pair[1])) / strong.length,
          picture: (math.squaredError(wanted[0], after[0]) + math.squaredError(wanted[1], after[1])) / strong.length };
      }
      return made[bits];
    };
    const widths = [1, 2, 3, 4, 5, 6, 7], least = (name) => widths.reduce((a, b) => (at(b)[name] < at(a)[name] ? b : a));
    const canvas = (label) => node("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });
    const paint = (target, [a, b]) => {
      const context = target.getContext("2d"), image = context.createImageData(SIDE, SIDE);
      a.forEach((value, i) => {
        const day = 1 / (1 + Math.exp(-1.1 * value)), ink = 1 / (1 + Math.exp(-2.2 * b[i]));
        const sky = [40 + 205 * day, 70 + 110 * day, 135 - 25 * day], body = [250, 214, 120];
        for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = sky[c] * (1 - 0.85 * ink) + body[c] * 0.85 * ink;
        image.data[4 * i + 3] = 255;
      });
      context.putImageData(image, 0, 0);
    };
    const first = canvas(tools.say("full")), second = canvas(tools.say("rounded"));
    tools.stage.append(node("div", { class: "learn-pair" }, node("figure", {}, first, node("figcaption", {}, tools.say("full"))),
      node("figure", {}, second, node("figcaption", {}, tools.say("rounded")))));
    paint(first, wanted);
    const bits = tools.slider("strong", { min: 1, max: 7, value: least("layer"), show: (value) => tools.say("split", { strong: value, weak: TOTAL - value }) });
    let moved = false;
    bits.input.addEventListener("input", () => { moved = true; });
    tools.start(() => {
      const now = at(bits.value), byLayer = least("layer"), byPicture = least("picture");
      paint(second, now.after);
      tools.cards([["layer", number(now.layer), bits.value === byLayer ? "good" : ""], ["picture", number(now.picture), bits.value === byPicture ? "good" : "bad"]]);
      tools.facts(tools.say(bits.value === byPicture ? "found" : bits.value === byLayer ? "trap" : "between"));
      tools.goal(moved && bits.value === byPicture);
    });
  };

  lessons.timesteps = (tools) => {
    const STEPS = 20, BITS = 4, LIMIT = 0.04, COUNTS = [1, 2, 4, 5, 10, 20], drawing = tools.drawing(640, 250);
    const values = Array.from({ length: STEPS }, (_, step) => math.gaussians(900 + step, 96).map((value) => value * 0.5 * 12 ** (1 - step / (STEPS - 1))));
    const most = math.absmax(values.flat()), cache = {};
    const fit = (sets) => {
      if (!cache[sets]) {
        const each = STEPS / sets, grids = Array.from({ length: sets }, (_, set) => math.search(values.slice(set * each, (set + 1) * each).flat(), BITS, "mid-rise"));
        cache[sets] = values.map((row, step) => { const q = grids[Math.floor(step / each)]; return { q, loss: math.loss(row, q) }; });
      }
      return cache[sets];
    };
    const sets = tools.slider("sets", { min: 0, max: COUNTS.length - 1, value: 0, show: (index) => String(COUNTS[index]) });
    tools.start(() => {
      const count = COUNTS[sets.value], found = fit(count), losses = found.map((step) => step.loss), worst = Math.max(...losses), marks = [];
      found.forEach(({ q, loss }, step) => {
        const x = 20 + step * 30.5, tall = (math.absmax(values[step]) / most) * 52, reach = Math.min(((q.scale * 2 ** BITS) / 2 / most) * 52, 58);
        marks.push(tools.bar(x, 78 - tall, 18, 2 * tall), tools.line(x - 5, 78 - reach, x + 23, 78 - reach, "is-level"), tools.line(x - 5, 78 + reach, x + 23, 78 + reach, "is-level"));
        const high = Math.min(loss / 0.2, 1) * 66;
        marks.push(tools.bar(x, 226 - high, 18, high, loss < LIMIT ? "is-good" : "is-warm"));
      });
      marks.push(tools.line(14, 226, 632, 226), tools.line(14, 226 - (LIMIT / 0.2) * 66, 632, 226 - (LIMIT / 0.2) * 66, "is-limit"),
        tools.text(14, 14, tools.say("ranges")), tools.text(14, 154, tools.say("losses")), tools.text(14, 244, tools.say("first")),
        tools.text(632, 244, tools.say("last"), { "text-anchor": "end" }));
      drawing.show(tools.say("drawing", { count, worst: percent(worst) }), ...marks);
      tools.cards([["scales", String(count)], ["worst", percent(worst), worst < LIMIT ? "good" : "bad"], ["mean", percent(math.mean(losses))]]);
      tools.goal(worst < LIMIT && count <= COUNTS.find((tried) => Math.max(...fit(tried).map((step) => step.loss)) < LIMIT));
    });
  };
});

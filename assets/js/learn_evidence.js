// Lessons on training and judging: a relation loss that may be cut off, and FID on small sets of pictures.
(window.mpqdmChapters = window.mpqdmChapters || []).push(({ lessons, math, percent, number, node }) => {

  // A student of nine weights: three features at each of six places, and one prediction a place.
  const student = (() => {
    const places = Array.from({ length: 6 }, (_, place) => math.gaussians(40 + place, 3)), readout = [0.7, -0.5, 0.6], TEMPERATURE = 0.5;
    const teacher = [1, 0.3, -0.2, -0.4, 0.9, 0.5, 0.2, -0.6, 1.1];
    const features = (w) => places.map((x) => [0, 1, 2].map((c) => x[0] * w[c] + x[1] * w[3 + c] + x[2] * w[6 + c]));
    const predictions = (w) => features(w).map((row) => math.sum(row.map((value, c) => value * readout[c])));
    const wanted = features(teacher), target = predictions(teacher);
    const away = math.gaussians(77, 9);
    return { start: teacher.map((value, i) => value + 0.7 * away[i]),
      task: (w) => math.squaredError(predictions(w), target) / target.length, relation: (w) => math.relation(features(w), wanted, TEMPERATURE) };
  })();
  const slope = (loss, w) => w.map((_, i) => {
    const up = [...w], down = [...w];
    up[i] += 1e-4; down[i] -= 1e-4;
    return (loss(up) - loss(down)) / 2e-4;
  });
  const length = (vector) => Math.sqrt(math.energy(vector));

  // Adam on the sum of both losses; a detached relation loss is computed and shown, but has no slope.
  function train(weight, detached, steps) {
    let w = [...student.start];
    const first = w.map(() => 0), second = w.map(() => 0), curve = [], still = w.map(() => 0);
    for (let step = 1; step <= steps; step += 1) {
      const task = slope(student.task, w), relation = detached ? still : slope(student.relation, w);
      curve.push({ task: student.task(w), relation: student.relation(w), taskPull: length(task), relationPull: length(relation) * weight });
      w = w.map((value, i) => {
        const pull = task[i] + weight * relation[i];
        first[i] = 0.9 * first[i] + 0.1 * pull; second[i] = 0.999 * second[i] + 0.001 * pull * pull;
        return value - (0.02 * first[i]) / (1 - 0.9 ** step) / (Math.sqrt(second[i] / (1 - 0.999 ** step)) + 1e-8);
      });
    }
    curve.push({ ...curve[curve.length - 1], task: student.task(w), relation: student.relation(w) });
    return curve;
  }

  lessons.relation = (tools) => {
    const STEPS = 200, TARGET = 0.01, drawing = tools.drawing(640, 220);
    const detached = tools.check("detached", true);
    const weight = tools.slider("weight", { min: 0, max: 1, step: 0.1, value: 0.5, show: (value) => number(value) });
    let curve = null;
    tools.button("train", () => { curve = train(weight.value, detached.value, STEPS); tools.redraw(); curve = null; });
    const start = { task: student.task(student.start), relation: student.relation(student.start) };
    let shown = null;
    tools.start(() => {
      if (curve) shown = curve;
      const marks = [tools.line(64, 196, 632, 196), tools.line(64, 14, 64, 196)];
      const plot = (name, kind, place) => {
        const points = (shown || [start]).map((entry, step) => [64 + (568 * step) / STEPS, 196 - (Math.log10(Math.max(entry[name], 1e-5)) + 5) * 34]);
        marks.push(tools.path(points, kind), tools.dot(...points[0], 4, kind), tools.text(632, place, tools.say(name), { "text-anchor": "end", class: `learn-text ${kind}` }));
      };
      plot("task", "is-second", 20); plot("relation", "is-warm", 38);
      ["1", "0.1", "0.01", "10⁻³", "10⁻⁴"].forEach((label, i) => marks.push(tools.text(58, 30 + i * 34, label, { "text-anchor": "end" }), tools.line(64, 26 + i * 34, 632, 26 + i * 34, "is-faint")));
      const end = shown ? shown[shown.length - 1] : start, pull = shown ? shown[0].relationPull : null;
      drawing.show(tools.say("drawing", { task: number(end.task), relation: number(end.relation) }), ...marks);
      tools.cards([["task", number(end.task)], ["relation", number(end.relation), shown ? (end.relation < TARGET ? "good" : "bad") : ""],
        ["task_pull", shown ? number(shown[0].taskPull) : "–"], ["relation_pull", pull === null ? "–" : number(pull), pull === 0 ? "bad" : ""]]);
      if (curve) {
        tools.facts(tools.say(pull === 0 ? "dead" : end.relation < TARGET ? "alive" : "weak"));
        tools.goal(end.relation < TARGET);
      } else if (!shown) tools.facts(tools.say("untrained"));
    });
  };

  lessons.fid = (tools) => {
    const COUNTS = [10, 20, 50, 100, 200, 500, 1000, 2000], REPEATS = 10, MOST = 500, drawing = tools.drawing(640, 200), cache = {};
    const truth = { mean: [0, 0], xx: 1, xy: 0, yy: 1 }, shifts = { a: 0.25, b: 0.45 };
    const estimates = (model, n) => (cache[model + n] = cache[model + n] || Array.from({ length: REPEATS }, (_, repeat) => {
      const seed = (model === "a" ? 1000 : 3000) + repeat * 7 + n, x = math.gaussians(seed, n), y = math.gaussians(seed + 5000, n);
      return math.frechet(math.moments(x.map((value, i) => [value + shifts[model], y[i]])), truth);
    }));
    const show = (index) => String(COUNTS[index]);
    const nA = tools.slider("count_a", { min: 0, max: COUNTS.length - 1, value: 1, show }), nB = tools.slider("count_b", { min: 0, max: COUNTS.length - 1, value: 6, show });
    const marked = node("p", { class: "learn-facts" });
    tools.stage.append(marked);
    tools.start(() => {
      const a = estimates("a", COUNTS[nA.value]), b = estimates("b", COUNTS[nB.value]);
      const place = (value) => 90 + Math.min(value / 0.8, 1.02) * 520, marks = [tools.line(90, 160, 620, 160)];
      [0, 0.2, 0.4, 0.6, 0.8].forEach((tick) => marks.push(tools.text(place(tick), 178, String(tick), { "text-anchor": "middle" }), tools.line(place(tick), 20, place(tick), 160, "is-faint")));
      [[a, 55, "a", ""], [b, 120, "b", "is-warm"]].forEach(([values, y, model, kind]) => {
        marks.push(tools.text(10, y + 4, tools.say(model)), tools.line(place(shifts[model] ** 2), y - 26, place(shifts[model] ** 2), y + 26, "is-truth"));
        values.forEach((value, i) => marks.push(tools.dot(place(value), y - 16 + (i % 5) * 8, 5, kind)));
      });
      const right = a.filter((value, i) => value < b[i]).length, same = nA.value === nB.value;
      drawing.show(tools.say("drawing", { right }), ...marks, tools.text(620, 196, tools.say("axis"), { "text-anchor": "end" }));
      tools.cards([["mean_a", number(math.mean(a))], ["mean_b", number(math.mean(b))], ["right", tools.say("of_ten", { right }), right === REPEATS && same ? "good" : "bad"]]);
      marked.textContent = tools.say(same ? (right === REPEATS ? "fair_and_enough" : "fair_but_few") : "unfair");
      tools.goal(same && right === REPEATS && COUNTS[nA.value] <= MOST);
    });
  };
});

// The arithmetic of the lessons, the same as the library's: tests/browser/test_learn_math.py compares the two.
(() => {
  const page = (window.mpqdm = window.mpqdm || {});
  const math = (page.math = {});
  const SHRINKS = 80; // candidates of the range search: 1.00, 0.99, ..., 0.21 of the full range

  // Numbers that look random and are the same for everyone.
  math.random = (seed) => {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  };
  math.gaussians = (seed, count) => {
    const next = math.random(seed);
    return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
  };

  math.sum = (values) => values.reduce((total, value) => total + value, 0);
  math.mean = (values) => math.sum(values) / values.length;
  math.energy = (values) => math.sum(values.map((value) => value * value));
  math.absmax = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

  // Fourth moment over the squared second: 3 for a Gaussian, 0 for a constant channel.
  math.kurtosis = (values) => {
    const middle = math.mean(values), away = values.map((value) => value - middle);
    const second = math.mean(away.map((value) => value ** 2)), fourth = math.mean(away.map((value) => value ** 4));
    return second === 0 ? 0 : fourth / second ** 2;
  };

  const roundEven = (value) => {
    const down = Math.floor(value), rest = value - down;
    if (rest !== 0.5) return Math.round(value);
    return down % 2 === 0 ? down : down + 1;
  };

  // Levels that cover [low, high], widened to contain 0. `offset` is the code at which 0 lies.
  math.cover = (low, high, bits, grid) => {
    const bottom = Math.min(low, 0), top = Math.max(high, 0), levels = 2 ** bits;
    if (grid === "mid-rise") {
      return { bits, grid, scale: Math.max((2 * Math.max(-bottom, top)) / levels, 1e-12), offset: levels / 2 - 0.5 };
    }
    const scale = Math.max((top - bottom) / (levels - 1), 1e-12);
    return { bits, grid, scale, offset: Math.min(Math.max(roundEven(-bottom / scale), 0), levels - 1) };
  };

  math.codes = (values, q) => values.map((value) => {
    const steps = value / q.scale;
    const code = q.grid === "mid-rise" ? Math.floor(steps) + q.offset + 0.5 : roundEven(steps) + q.offset;
    return Math.min(Math.max(code, 0), 2 ** q.bits - 1);
  });
  math.levels = (q) => Array.from({ length: 2 ** q.bits }, (_, code) => (code - q.offset) * q.scale);
  math.rounded = (values, q) => math.codes(values, q).map((code) => (code - q.offset) * q.scale);
  math.squaredError = (values, others) => math.sum(values.map((value, index) => (value - others[index]) ** 2));
  // Share of the energy that rounding loses.
  math.loss = (values, q) => math.squaredError(values, math.rounded(values, q)) / (math.energy(values) || 1);

  // The range that loses least of 80 shrinks of the full one; of equal ones the widest.
  math.search = (values, bits, grid, exponent = 2) => {
    const full = math.cover(Math.min(...values), Math.max(...values), bits, grid);
    let best = null, least = Infinity;
    for (let index = 0; index < SHRINKS; index += 1) {
      const tried = { ...full, scale: full.scale * (1 - index / 100) };
      const score = math.sum(math.rounded(values, tried).map((value, place) => Math.abs(values[place] - value) ** exponent));
      if (score < least) { least = score; best = tried; }
    }
    return best;
  };

  // Factor of every input channel: max|W|^(1 - alpha) / max|X|^alpha; dead channels keep 1.
  math.prescale = (weightMax, inputMax, alpha) => weightMax.map((weight, index) => {
    const input = inputMax[index];
    return weight > 1e-5 && input > 1e-5 ? weight ** (1 - alpha) / input ** alpha : 1;
  });

  // Errors[channel][bits - 1] -> bits of each channel with the smallest sum, for errors that fall ever more slowly.
  math.spend = (errors, total) => {
    const bits = errors.map(() => 1);
    for (let left = total - errors.length; left > 0; left -= 1) {
      let best = -1, most = -Infinity;
      errors.forEach((row, channel) => {
        const saved = bits[channel] < row.length ? row[bits[channel] - 1] - row[bits[channel]] : -Infinity;
        if (saved > most) { most = saved; best = channel; }
      });
      bits[best] += 1;
    }
    return bits;
  };
  math.cost = (errors, bits) => math.sum(errors.map((row, channel) => row[bits[channel] - 1]));

  // KL(softmax(teacher's similarities) || softmax(student's)), mean over rows; features are rows of positions.
  math.relation = (student, teacher, temperature) => {
    const logs = (features) => {
      const units = features.map((row) => { const size = Math.max(Math.sqrt(math.energy(row)), 1e-12); return row.map((value) => value / size); });
      return units.map((a) => {
        const logits = units.map((b) => math.sum(a.map((value, index) => value * b[index])) / temperature);
        const most = Math.max(...logits), all = most + Math.log(math.sum(logits.map((value) => Math.exp(value - most))));
        return logits.map((value) => value - all);
      });
    };
    const own = logs(student), wanted = logs(teacher);
    return math.mean(wanted.map((row, place) => math.sum(row.map((value, index) => Math.exp(value) * (value - own[place][index])))));
  };

  // Mean and 1/(n - 1) covariance of points [x, y].
  math.moments = (points) => {
    const mean = [0, 1].map((axis) => math.mean(points.map((point) => point[axis])));
    const cover = (i, j) => math.sum(points.map((point) => (point[i] - mean[i]) * (point[j] - mean[j]))) / (points.length - 1);
    return { mean, xx: cover(0, 0), xy: cover(0, 1), yy: cover(1, 1) };
  };
  // Frechet distance of two Gaussians in the plane; the trace of the root of a 2 x 2 product has a closed form.
  math.frechet = (a, b) => {
    const shift = (a.mean[0] - b.mean[0]) ** 2 + (a.mean[1] - b.mean[1]) ** 2;
    const trace = a.xx * b.xx + 2 * a.xy * b.xy + a.yy * b.yy;
    const determinant = Math.max(a.xx * a.yy - a.xy ** 2, 0) * Math.max(b.xx * b.yy - b.xy ** 2, 0);
    return shift + a.xx + a.yy + b.xx + b.yy - 2 * Math.sqrt(Math.max(trace + 2 * Math.sqrt(determinant), 0));
  };

  // Wilson's 95 % interval of a share.
  math.wilson = (right, tries) => {
    if (!tries) return [0, 1];
    const z = 1.959963984540054, share = right / tries, size = 1 + z ** 2 / tries;
    const middle = (share + z ** 2 / (2 * tries)) / size;
    const half = (z * Math.sqrt((share * (1 - share)) / tries + z ** 2 / (4 * tries ** 2))) / size;
    return [Math.max(0, middle - half), Math.min(1, middle + half)];
  };
})();

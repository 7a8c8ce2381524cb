// Reads Prometheus's text format, and what two readings of it say of the time between them.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// A map from a metric's name to its samples, each {labels, value}.
export function parse(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!metrics.has(found[1])) metrics.set(found[1], []);
    metrics.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return metrics;
}

const matches = (labels, wanted) => Object.entries(wanted).every(([name, value]) => labels[name] === value);

export function total(metrics, name, wanted = {}) {
  const samples = (metrics.get(name) ?? []).filter(({ labels }) => matches(labels, wanted));
  return samples.reduce((sum, { value }) => sum + value, 0);
}

export const growth = (before, now, name, wanted) => Math.max(0, total(now, name, wanted) - total(before, name, wanted));

// Observations of a histogram between two readings, by bucket: [{upTo, count}], not cumulative.
export function buckets(before, now, name, wanted = {}) {
  const bounds = new Set((now.get(`${name}_bucket`) ?? []).filter(({ labels }) => matches(labels, wanted)).map(({ labels }) => labels.le));
  const number = (le) => (le === "+Inf" ? Infinity : Number(le));
  let below = 0;
  return [...bounds]
    .sort((a, b) => number(a) - number(b))
    .map((le) => {
      const upTo = growth(before, now, `${name}_bucket`, { ...wanted, le });
      const count = Math.max(0, upTo - below);
      below = upTo;
      return { upTo: number(le), count };
    });
}

// As Prometheus's histogram_quantile: linear inside a bucket; null without observations.
export function quantile(share, found) {
  const all = found.reduce((sum, { count }) => sum + count, 0);
  if (all === 0) return null;
  let left = share * all, from = 0;
  for (const { upTo, count } of found) {
    if (left <= count) return upTo === Infinity ? from : from + ((upTo - from) * left) / Math.max(count, 1e-9);
    left -= count;
    from = upTo;
  }
  return from;
}

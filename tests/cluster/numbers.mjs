// Figures of many samples: shares, and bars in the classes of `chatchat-sim sweep`.

// Upper bounds of the classes, ms; longer ones have a class of their own.
const CLASSES_MS = [100, 250, 500, 1000, 2000, 5000, 10_000, 20_000];
const WIDTH = 40;

// Returns the value that this share of the values do not exceed.
export function at_share(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length, Math.max(1, Math.ceil(sorted.length * share))) - 1] ?? NaN;
}

const span = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 && ms % 1000 ? 2 : 0)} s`);

// Returns one line of figures: number, median, 90 %, 99 % and the longest.
export function shares(values) {
  const cells = [0.5, 0.9, 0.99, 1].map((share) => (values.length ? span(at_share(values, share)) : "-"));
  return [String(values.length), ...cells].map((cell) => cell.padStart(8)).join(" ");
}

// Returns a line for each class from the first to the last that holds a value.
export function bars(values) {
  const bounds = [...CLASSES_MS, Infinity];
  const counts = bounds.map((bound, nth) => values.filter((ms) => ms <= bound && ms > (bounds[nth - 1] ?? -1)).length);
  const most = Math.max(...counts);
  const [first, last] = [counts.findIndex((count) => count > 0), counts.findLastIndex((count) => count > 0)];
  return counts.slice(Math.max(0, first), last + 1).map((count, nth) => {
    const bound = bounds[first + nth];
    const name = bound < Infinity ? `≤ ${span(bound)}` : "more";
    return `${name.padStart(10)} ${String(count).padStart(6)}  ${"█".repeat(Math.ceil((count / most) * WIDTH))}`;
  });
}

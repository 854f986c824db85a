// Numbers and times as text.

export function percent(value) {
  return `${Math.round((value ?? 0) * 100)} %`;
}

/** Minutes and seconds from the beginning of a recording. */
export function mark(seconds) {
  const tenths = Math.round(Math.max(0, seconds) * 10);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, '0')}`;
}

/** A time as a clock shows it; in a recording, which begins at `start`, as a mark. */
export function clock(time, start) {
  return start === undefined ? new Date(time * 1000).toLocaleTimeString() : mark(time - start);
}

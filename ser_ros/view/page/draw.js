// Pictures of one voice, each on a canvas of its own.

import { colour, glyphOf, variableOf, UNCERTAIN } from './emotions.js';
import { COLUMN, SOUND_SHOWN, lastBefore } from './store.js';

const N_MELS = 48;
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const palettes = new Map();
const strip = document.createElement('canvas');

/** The canvas's context, in CSS pixels and cleared. */
function prepare(canvas) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const size = Math.max(11, parseFloat(getComputedStyle(canvas).fontSize) * 0.78);
  context.font = `${size}px ${FONT}`;
  context.textBaseline = 'middle';
  return { context, width, height, size };
}

/** A colour of the style sheet, #rgb or #rrggbb, as three numbers up to 255. */
export function rgb(text) {
  const digits = text.length === 4 ? [...text.slice(1)].map((d) => d + d).join('') : text.slice(1, 7);
  return [0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16));
}

/** 256 colours from the darkest to the brightest sound, as pixels. */
function palette() {
  const stops = [0, 1, 2, 3, 4].map((n) => colour(`--sound-${n}`));
  const key = stops.join();
  if (!palettes.has(key)) {
    const colours = stops.map(rgb);
    palettes.set(key, Uint32Array.from({ length: 256 }, (_, shade) => {
      const position = (shade / 255) * (colours.length - 1);
      const i = Math.min(colours.length - 2, Math.floor(position));
      const [r, g, b] = colours[i].map((c, k) => Math.round(c + (colours[i + 1][k] - c) * (position - i)));
      return (255 << 24) | (b << 16) | (g << 8) | r;
    }));
  }
  return palettes.get(key);
}

/** The columns between two times: called with the piece, the column in it, and its place from `start` on. */
export function eachColumn(lane, start, end, visit) {
  const n = Math.round((end - start) / COLUMN);
  for (const piece of lane.sound) {
    const offset = Math.round((piece.time - start) / COLUMN);
    for (let i = Math.max(0, -offset); i < piece.n && offset + i < n; i++) visit(piece, i, offset + i);
  }
}

/** Stretches of speech between two times. */
export function speechIn(lane, start, end) {
  const found = [];
  let since = null;
  for (const [time, isSpeaking] of lane.speech) {
    if (time > end) break;
    if (isSpeaking) since ??= time;
    else if (since !== null) {
      if (time > start) found.push([Math.max(since, start), time]);
      since = null;
    }
  }
  if (since !== null) found.push([Math.max(since, start), end]);
  return found;
}

/** A sample as a height; quiet speech is seen, too. */
export function tall(sample) {
  return Math.sign(sample) * (Math.abs(sample) / 127) ** 0.6;
}

export function drawWave(canvas, lane, head) {
  const { context, width, height, size } = prepare(canvas);
  const start = head - SOUND_SHOWN;
  const x = (time) => ((time - start) / SOUND_SHOWN) * width;
  const top = size + 4;
  const middle = (top + height) / 2;
  const half = (height - top) / 2;
  const speech = speechIn(lane, start, head);
  context.fillStyle = colour('--speech');
  for (const [from, to] of speech) context.fillRect(x(from), top, x(to) - x(from), height - top);
  context.fillStyle = colour('--speech-line');
  for (const [from, to] of speech) {
    context.fillRect(x(from), top - 3, x(to) - x(from), 3);
    if (x(to) - x(from) > 50) context.fillText('speech', x(from) + 2, size / 2);
  }
  context.fillStyle = colour('--line');
  context.fillRect(0, middle, width, 1);
  context.fillStyle = colour('--wave');
  const step = (width * COLUMN) / SOUND_SHOWN;
  eachColumn(lane, start, head, (piece, i, place) => {
    const low = tall(piece.peaks[2 * i]);
    const high = tall(piece.peaks[2 * i + 1]);
    context.fillRect(place * step, middle - high * half, Math.max(1, step), Math.max(1, (high - low) * half));
  });
}

export function drawSpectrogram(canvas, lane, head) {
  const { context, width, height, size } = prepare(canvas);
  const axis = size + 6;
  const n = Math.round(SOUND_SHOWN / COLUMN);
  const colours = palette();
  strip.width = n;
  strip.height = N_MELS;
  const pen = strip.getContext('2d');
  const image = pen.createImageData(n, N_MELS);
  const pixels = new Uint32Array(image.data.buffer).fill(colours[0]);
  const start = Math.floor((head - SOUND_SHOWN) / COLUMN) * COLUMN;
  eachColumn(lane, start, start + SOUND_SHOWN, (piece, i, place) => {
    for (let row = 0; row < N_MELS; row++) pixels[(N_MELS - 1 - row) * n + place] = colours[piece.mel[i * N_MELS + row]];
  });
  pen.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(strip, 0, 0, width, height - axis);
  context.strokeStyle = colour('--line');
  context.strokeRect(0.5, 0.5, width - 1, height - axis - 1);
  timeAxis(context, width, height - axis / 2, SOUND_SHOWN, width < 500 ? 4 : 2);
  context.textAlign = 'left';
  for (const [hertz, label] of [[500, '500'], [2000, '2k'], [5000, '5k Hz']]) {
    const mel = (f) => 2595 * Math.log10(1 + f / 700);
    const y = (height - axis) * (1 - (mel(hertz) - mel(50)) / (mel(7600) - mel(50)));
    const wide = context.measureText(label).width;
    context.fillStyle = colour('--panel');
    context.globalAlpha = 0.75;
    context.fillRect(2, y - size / 2, wide + 4, size);
    context.globalAlpha = 1;
    context.fillStyle = colour('--text');
    context.fillText(label, 4, y);
  }
}

function timeAxis(context, width, y, seconds, step, left = 0) {
  context.fillStyle = colour('--quiet');
  for (let ago = 0; ago <= seconds + 0.01; ago += step) {
    const x = left + (1 - ago / seconds) * (width - left);
    context.textAlign = ago === 0 ? 'right' : ago > seconds - 0.01 ? 'left' : 'center';
    context.fillText(ago === 0 ? 'now' : `−${Math.round(ago)} s`, x, y);
  }
}

/** A row for each class, over the last seconds. */
export function drawProbabilities(canvas, lane, head, seconds) {
  const { context, width, height, size } = prepare(canvas);
  const rows = lane.classes;
  if (!rows.length) {
    context.fillStyle = colour('--quiet');
    context.fillText('none yet', 0, size);
    return;
  }
  const axis = size + 8;
  const row = (height - axis) / rows.length;
  const left = Math.max(...rows.map(([name]) => context.measureText(`● ${name}`).width)) + 10;
  const right = context.measureText('100 %').width + 10;
  const wide = width - left - right;
  const start = head - seconds;
  const x = (time) => left + ((time - start) / seconds) * wide;
  const windows = lane.windows.filter(([time]) => time >= start - 1 && time <= head);
  const last = windows.at(-1);
  const isFresh = last && head - last[0] < 1;
  rows.forEach(([name, expression], i) => {
    const base = (i + 1) * row - 3;
    const tall = row - 8;
    context.fillStyle = colour('--line');
    context.fillRect(left, base, wide, 1);
    context.fillStyle = colour(variableOf(expression));
    let before = null;
    for (const [time, values] of windows) {
      const value = values[i] ?? 0;
      const from = Math.max(start, before !== null && time - before < 0.6 ? before : time - 0.25);
      if (x(time) > left) context.fillRect(x(from), base - value * tall, Math.max(1, x(time) - x(from) + 0.5), value * tall);
      before = time;
    }
    context.textAlign = 'left';
    context.fillText(glyphOf(expression), 0, base - tall / 2);
    context.fillStyle = colour('--text');
    context.fillText(name, context.measureText('● ').width, base - tall / 2);
    context.textAlign = 'right';
    context.fillStyle = colour(isFresh ? '--text' : '--quiet');
    context.fillText(last ? `${Math.round((last[1][i] ?? 0) * 100)} %` : '–', width, base - tall / 2);
  });
  context.save();
  timeAxis(context, width - right, height - axis / 2 + 2, seconds, seconds / (width < 500 ? 2 : 6), left);
  context.restore();
}

/** Where the voice is on the plane of valence and arousal, and where it was. */
export function drawPlane(canvas, lane, head, places) {
  const { context, width, height, size } = prepare(canvas);
  const edge = size * 1.6;
  const side = Math.min(width, height) - 2 * edge;
  const x = (valence) => width / 2 + (valence * side) / 2;
  const y = (arousal) => height / 2 - (arousal * side) / 2;
  context.strokeStyle = colour('--line');
  context.strokeRect(x(-1), y(1), side, side);
  context.beginPath();
  context.moveTo(x(-1), y(0));
  context.lineTo(x(1), y(0));
  context.moveTo(x(0), y(-1));
  context.lineTo(x(0), y(1));
  context.stroke();
  context.fillStyle = colour('--quiet');
  context.textAlign = 'center';
  context.fillText('excited', x(0), y(1) - size * 0.8);
  context.fillText('calm', x(0), y(-1) + size * 0.8);
  for (const [text, at, turn] of [['unpleasant', -1, -1], ['pleasant', 1, 1]]) {
    context.save();
    context.translate(x(at) + turn * size * 0.8, y(0));
    context.rotate((turn * Math.PI) / 2);
    context.fillText(text, 0, 0);
    context.restore();
  }
  const labels = [];
  for (const [expression, valence, arousal] of places ?? []) {
    context.fillStyle = colour(variableOf(expression));
    context.fillText(glyphOf(expression), x(valence), y(arousal));
    const below = { x: x(valence), y: y(arousal) + size, half: context.measureText(expression).width / 2 + 3 };
    const isTaken = labels.some((l) => Math.abs(l.x - below.x) < l.half + below.half && Math.abs(l.y - below.y) < size);
    if (isTaken) below.y = y(arousal) - size;
    labels.push(below);
    context.fillStyle = colour('--quiet');
    context.fillText(expression, below.x, below.y);
  }
  const trace = lane.decisions.filter((d) => d.valence !== null && d.time <= head && d.time > head - 20);
  trace.forEach((decision, i) => {
    const age = (head - decision.time) / 20;
    context.globalAlpha = 1 - 0.85 * age;
    context.strokeStyle = context.fillStyle = colour('--text');
    if (i && decision.time - trace[i - 1].time < 1) {
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(x(trace[i - 1].valence), y(trace[i - 1].arousal));
      context.lineTo(x(decision.valence), y(decision.arousal));
      context.stroke();
    }
  });
  context.globalAlpha = 1;
  context.lineWidth = 1;
  const now = trace.at(-1);
  if (now) {
    context.beginPath();
    context.arc(x(now.valence), y(now.arousal), size * 0.75, 0, 2 * Math.PI);
    context.fillStyle = colour(variableOf(now.expression ?? UNCERTAIN));
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = colour('--text');
    context.stroke();
  }
  const mood = lastBefore(lane.mood, head);
  if (mood) {
    const reach = size * 0.8;
    context.lineWidth = 2;
    context.strokeStyle = colour('--accent');
    context.strokeRect(x(mood[1]) - reach, y(mood[2]) - reach, 2 * reach, 2 * reach);
    context.fillStyle = colour('--accent');
    context.fillText('mood', x(mood[1]), y(mood[2]) - reach - size * 0.6);
  }
  context.lineWidth = 1;
}

// The page: a connection that comes back by itself, voices, nodes, and commands.

import { UNCERTAIN } from './emotions.js';
import { HISTORY, SOUND_SHOWN, Store } from './store.js';
import { clock, mark, percent } from './text.js';
import { setText, Voice } from './voice.js';

const STALE = 2;
const LOST = 5;
const SILENT = 3;
const FRAME = 1000 / 20;
const find = (id) => document.getElementById(id);
const store = new Store();
const voices = new Map();
const player = find('sound');
let opened = false;
let isRefused = false;
let wanted = null;
let full = '';
let pause = 500;
let drawn = 0;

// The token comes after a #, which browsers send to nobody, and does not stay in the address.
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  sessionStorage.setItem('token', given);
  history.replaceState(null, '', location.pathname);
}
const token = () => sessionStorage.getItem('token') ?? '';
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

// The connection.

function connect() {
  const protocols = ['ser-view'];
  if (/^[\w-]+$/.test(token())) protocols.push(`token.${token()}`);
  const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/live`, protocols);
  // Where the network has gone nobody closes it.
  const watch = setInterval(() => {
    if (opened && performance.now() - store.received > LOST * 1000) socket.close();
  }, 1000);
  socket.addEventListener('open', () => {
    opened = true;
    full = '';
    pause = 500;
    store.received = performance.now();
  });
  socket.addEventListener('message', (event) => {
    store.add(JSON.parse(event.data));
    update();
    if (store.isRecording) {
      socket.close();
      openRecording(false);
    }
  });
  socket.addEventListener('close', async () => {
    clearInterval(watch);
    const wasOpen = opened;
    opened = false;
    if (store.isRecording) return;
    showConnection();
    const refusal = wasOpen ? null : await findRefusal();
    if (refusal?.status === 401) {
      isRefused = true;
      askForToken();
      return;
    }
    full = refusal?.status === 503 ? await refusal.text() : '';
    setTimeout(connect, pause);
    pause = Math.min(5000, pause * 1.5);
  });
}

/** The server's answer to a connection that it refuses, which a WebSocket does not tell. */
async function findRefusal() {
  try {
    return await fetch('/live', { headers: headers() });
  } catch {
    return null;
  }
}

function askForToken(then) {
  const dialog = find('ask');
  if (dialog.open) return;
  find('token').value = '';
  const use = () => {
    sessionStorage.setItem('token', find('token').value.trim());
    dialog.close();
    if (isRefused) {
      isRefused = false;
      connect();
    }
    then?.();
  };
  find('use-token').onclick = use;
  find('token').onkeydown = (event) => {
    if (event.key === 'Enter') use();
  };
  find('no-token').onclick = () => dialog.close();
  dialog.showModal();
}

function showConnection() {
  const age = (performance.now() - store.received) / 1000;
  const element = find('connection');
  const state = opened && age < STALE ? 'live' : isRefused ? 'refused' : full ? 'full' : store.received ? 'lost' : 'waiting';
  // Said aloud when it changes, not with each second.
  if (element.dataset.state !== state) {
    setText(find('announcement'), { live: 'connected', waiting: '', lost: 'connection lost', refused: 'needs the token', full }[state]);
  }
  element.dataset.state = state;
  setText(element, {
    live: 'live',
    waiting: 'connecting',
    lost: `connection lost ${Math.round(age)} s ago, trying again`,
    refused: 'needs the token: load the page again to enter it',
    full: `${full}, trying again`,
  }[state]);
}

// Voices.

function update() {
  for (const name of [...voices.keys()]) {
    if (voices.get(name).lane !== store.lanes.get(name)) {
      voices.get(name).element.remove();
      voices.delete(name);
    }
  }
  for (const [name, lane] of store.lanes) {
    if (!voices.has(name)) {
      const voice = new Voice(name, lane, { announce, clockOf, play, canPlay });
      voices.set(name, voice);
      find('lanes').append(voice.element);
    }
  }
  showStatus();
}

function draw(now) {
  requestAnimationFrame(draw);
  if (now - drawn < FRAME) return;
  drawn = now;
  if (!store.isRecording) showConnection();
  for (const voice of voices.values()) {
    const { lane } = voice;
    const quiet = (now - (lane.changed ?? now)) / 1000;
    const isStale = !store.isRecording && (!opened || quiet > STALE);
    const head = store.isRecording ? cursor() : lane.head === null ? null : lane.head + Math.min(0.15, Math.max(0, quiet));
    const { places, recording } = store.about;
    const seconds = recording ? Math.min(HISTORY, Math.max(SOUND_SHOWN, Math.ceil(recording.duration / 6) * 6)) : HISTORY;
    voice.draw(head, { isStale, age: quiet, places, isRecording: store.isRecording, seconds });
  }
}

function clockOf(time) {
  return clock(time, store.about.recording?.start);
}

function announce(name, item) {
  const said = `${name ? `${name}: ` : ''}${item.expression ?? UNCERTAIN}, ${percent(item.confidence)}`;
  setText(find('announcement'), said);
}

function canPlay() {
  return store.isRecording ? Boolean(store.about.recording.sound) : store.about.keep_audio > 0;
}

async function play(name, item, button) {
  wanted = item;
  if (store.isRecording) {
    player.currentTime = Math.max(0, item.start - store.about.recording.start);
    until = item.time + 0.2;
    start();
    return;
  }
  const address = `/sound?voice=${encodeURIComponent(name)}&id=${item.id}`;
  const answer = await fetch(address, { headers: headers() }).catch(() => null);
  if (answer === null) return; // the page says that the connection is lost
  if (answer.status === 401) {
    askForToken(() => play(name, item, button));
    return;
  }
  if (!answer.ok) {
    button.disabled = true;
    button.title = await answer.text();
    return;
  }
  const sound = await answer.blob();
  if (wanted !== item) return; // another one was chosen meanwhile
  const old = player.src;
  player.src = URL.createObjectURL(sound);
  URL.revokeObjectURL(old); // no sooner: it may still be loading
  start();
}

function start() {
  player.play().catch(() => {}); // another one began, or it was paused
}

// Nodes.

const TILES = [
  ['latency p50 ms', 'median latency', (v) => `${v} ms`, (v) => v > 1000],
  ['latency p95 ms', '95 % latency', (v) => `${v} ms`, (v) => v > 2000],
  ['real-time factor', 'load', (v) => percent(v), (v) => v > 0.9],
  ['lost seconds', 'lost on the way', (v) => `${v} s`, (v) => v > 0],
  ['dropped seconds', 'dropped', (v) => `${v} s`, (v) => v > 0],
  ['skipped windows', 'skipped windows', (v) => v, (v) => v > 0],
  ['messages lost', 'messages lost', (v) => v, (v) => v > 0],
  ['utterances', 'utterances', (v) => v, () => false],
  ['adaptation utterances', 'known utterances', (v) => v, () => false],
];

function showStatus() {
  const { nodes, missing } = store.status;
  const seen = nodes.map((node) => {
    if (node.age === null) return [node.name, node.state || 'not seen yet', ''];
    if (node.age > SILENT) return [node.name, 'silent', 'stale'];
    return [node.name, node.state || 'running', node.level];
  });
  replace(find('nodes'), seen, () => seen.map(([name, state, level]) => {
    const item = document.createElement('li');
    item.dataset.level = level;
    item.textContent = `${name}: ${state}`;
    return item;
  }));
  find('missing').hidden = !missing.length;
  replace(find('warning'), missing.map((sentence) => sentence.replace(/\d+ s/, '')), () => [missing.join('; ')]);
  replace(find('missing'), missing, () => missing.map((sentence) => {
    const item = document.createElement('li');
    item.textContent = sentence;
    return item;
  }));
  const values = Object.assign({}, ...nodes.map((node) => node.values).reverse());
  const silent = nodes.filter((node) => node.age > SILENT);
  const isOld = (key) => silent.includes(nodes.find((node) => Object.hasOwn(node.values, key)));
  const bundle = values.bundle ?? store.about.bundle;
  setText(find('bundle'), [store.isRecording ? '' : store.about.title, bundle, values.backend && `${values.backend} on ${values.device}`].filter(Boolean).join(' · '));
  find('commands').hidden = !(store.about.commands ?? []).length;
  for (const button of document.querySelectorAll('[data-command]')) button.hidden = !store.about.commands?.includes(button.dataset.command);
  const tiles = TILES.filter(([key]) => values[key] !== undefined && values[key] !== '');
  find('health').hidden = !nodes.length;
  replace(find('tiles'), tiles.map(([key]) => [key, values[key], isOld(key)]), () => tiles.map(([key, label, write, isBad]) => {
    const tile = document.createElement('div');
    const value = Number(values[key]);
    tile.dataset.bad = isBad(value);
    const term = document.createElement('dt');
    term.textContent = isOld(key) ? `${label}, old` : label;
    tile.dataset.old = isOld(key);
    const definition = document.createElement('dd');
    definition.textContent = Number.isNaN(value) ? values[key] : write(value);
    tile.append(term, definition);
    return tile;
  }));
  showReports(nodes);
}

/** Replace the children of an element if what they are made of has changed. */
function replace(element, sources, make) {
  const key = JSON.stringify(sources);
  if (element.made === key) return;
  element.made = key;
  element.replaceChildren(...make());
}

function showReports(nodes) {
  const reports = find('reports');
  replace(reports, nodes.map((node) => node.name), () => nodes.map(() => {
    const details = document.createElement('details');
    details.append(document.createElement('summary'), document.createElement('table'));
    return details;
  }));
  nodes.forEach((node, i) => {
    const details = reports.children[i];
    const age = node.age === null ? 'no diagnostics received yet' : node.age > SILENT ? `${node.message} (${Math.round(node.age)} s ago)` : node.message;
    setText(details.querySelector('summary'), `${node.name}: ${node.level ? `${node.level.toUpperCase()}, ` : ''}${age}`);
    if (!details.open) return;
    replace(details.querySelector('table'), Object.entries(node.values), () => Object.entries(node.values).map(([key, value]) => {
      const row = document.createElement('tr');
      const head = document.createElement('th');
      head.scope = 'row';
      head.textContent = key;
      const cell = document.createElement('td');
      cell.textContent = value;
      row.append(head, cell);
      return row;
    }));
  });
}

// Commands.

async function command(button) {
  if (!token()) {
    askForToken(() => command(button));
    return;
  }
  const { command: name, value } = button.dataset;
  const body = value === undefined ? undefined : JSON.stringify({ value: value === 'true' });
  button.disabled = true;
  let answer = { success: false, message: 'no answer: the connection is lost' };
  try {
    const response = await fetch(`/command/${name}`, { method: 'POST', headers: headers(), body });
    answer = response.status === 403 || response.status === 429 ? { success: false, message: await response.text() } : await response.json();
    if (response.status === 401) sessionStorage.removeItem('token');
  } catch { /* it stays what it is */ }
  button.disabled = false;
  const element = find('answer');
  element.hidden = false;
  element.dataset.success = answer.success;
  setText(element, `${button.textContent}: ${answer.message}`);
}

for (const button of document.querySelectorAll('[data-command]')) button.addEventListener('click', () => command(button));

// Recordings.

let until = null;

function cursor() {
  return store.about.recording.start + Number(find('cursor').value);
}

function move(seconds) {
  find('cursor').value = seconds;
  setText(find('position'), `${mark(Number(find('cursor').value))} of ${mark(store.about.recording.duration)}`);
  find('cursor').setAttribute('aria-valuetext', mark(Number(find('cursor').value)));
}

async function openRecording(isInPage) {
  const { recording } = store.about;
  find('connection').hidden = true;
  find('player').hidden = false;
  document.title = store.about.title;
  setText(document.querySelector('h1'), store.about.title);
  find('cursor').max = recording.duration;
  find('play').hidden = !recording.sound;
  if (recording.sound) {
    player.src = isInPage ? recording.sound : URL.createObjectURL(await (await fetch(recording.sound, { headers: headers() })).blob());
  }
  move(recording.duration);
  find('cursor').addEventListener('input', () => {
    until = null;
    player.currentTime = Number(find('cursor').value);
    move(find('cursor').value);
  });
  find('play').addEventListener('click', () => {
    until = null;
    if (!player.paused) player.pause();
    else {
      if (player.currentTime >= recording.duration - 0.05 || Number(find('cursor').value) >= recording.duration) player.currentTime = 0;
      start();
    }
  });
  for (const event of ['play', 'pause', 'ended']) {
    player.addEventListener(event, () => {
      setText(find('play'), player.paused ? '▶' : '❚❚');
      find('play').setAttribute('aria-label', player.paused ? 'Play' : 'Pause');
    });
  }
  setInterval(() => {
    if (player.paused) return;
    move(player.currentTime);
    if (until !== null && cursor() >= until) player.pause();
  }, 30);
}

// Either everything is in the page already, or it comes over the connection.
const inPage = find('recording');
if (inPage) {
  store.add(JSON.parse(inPage.textContent));
  update();
  openRecording(true);
} else {
  connect();
}
requestAnimationFrame(draw);

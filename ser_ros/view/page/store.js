// What is known of each voice, as the server sends it: a snapshot first, then what is new.

export const SOUND_SHOWN = 12;
export const HISTORY = 60;
export const COLUMN = 0.02;
const KINDS = ['sound', 'windows', 'decisions', 'speech', 'mood', 'utterances'];

function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const timeOf = {
  sound: (piece) => piece.time + piece.n * COLUMN,
  windows: (item) => item[0],
  speech: (item) => item[0],
  mood: (item) => item[0],
  decisions: (item) => item.time,
  utterances: (item) => item.time,
};

class Lane {
  constructor() {
    this.classes = [];
    this.head = null;
    this.speaking = false;
    this.level = null;
    this.clear();
  }

  clear() {
    for (const kind of KINDS) this[kind] = [];
  }

  add(message, isRecording) {
    if (message.restart) this.clear();
    for (const kind of KINDS) {
      for (const item of message[kind] ?? []) {
        if (kind === 'sound') {
          const mel = bytesOf(item.mel);
          const peaks = new Int8Array(bytesOf(item.peaks).buffer);
          this.sound.push({ time: item.time, n: peaks.length / 2, peaks, mel });
        } else {
          this[kind].push(item);
        }
      }
    }
    if (message.head !== this.head) this.changed = performance.now();
    this.head = message.head;
    this.speaking = message.speaking;
    this.level = message.level;
    if (!isRecording) this.forgetOld();
  }

  forgetOld() {
    for (const kind of KINDS) {
      const items = this[kind];
      const since = this.head - (kind === 'sound' ? SOUND_SHOWN : HISTORY) - 1;
      let n = 0;
      if (kind === 'utterances') n = Math.max(0, items.length - 50);
      else while (n < items.length - 1 && timeOf[kind](items[n + 1]) < since) n++;
      if (n) items.splice(0, n);
    }
  }
}

export class Store {
  constructor() {
    this.lanes = new Map();
    this.about = {};
    this.status = { nodes: [], missing: [], lanes: {} };
    this.received = 0;
  }

  get isRecording() {
    return Boolean(this.about.recording);
  }

  add(message) {
    this.received = performance.now();
    if (message.type === 'snapshot') {
      this.about = message.about;
      this.lanes.clear();
    }
    for (const [name, content] of Object.entries(message.lanes)) {
      if (!this.lanes.has(name)) this.lanes.set(name, new Lane());
      this.lanes.get(name).add(content, this.isRecording);
    }
    for (const name of this.lanes.keys()) if (!Object.hasOwn(message.lanes, name)) this.lanes.delete(name);
    if (message.status) {
      this.status = message.status;
      for (const [name, about] of Object.entries(message.status.lanes)) {
        const lane = this.lanes.get(name);
        if (lane) lane.classes = about.classes;
      }
    }
  }
}

/** The last item that is not after a time; items are in order. */
export function lastBefore(items, time, when = (item) => item[0]) {
  for (let i = items.length - 1; i >= 0; i--) if (when(items[i]) <= time) return items[i];
  return null;
}

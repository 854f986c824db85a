// One voice on the page. Names come from outside: they are only ever set as text.

import { glyphOf, variableOf, wordsFor, UNCERTAIN } from './emotions.js';
import { drawPlane, drawProbabilities, drawSpectrogram, drawWave } from './draw.js';
import { lastBefore } from './store.js';
import { percent } from './text.js';

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function dress(element, expression) {
  element.style.setProperty('--colour', expression && `var(${variableOf(expression)})`);
}

export class Voice {
  constructor(name, lane, handlers) {
    this.name = name;
    this.lane = lane;
    this.handlers = handlers;
    this.element = document.getElementById('lane').content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.element.querySelector(selector);
    setText(this.find('.name'), name);
    this.element.setAttribute('aria-label', name ? `Voice ${name}` : 'Voice');
    this.cards = new Map();
    this.described = 0;
  }

  /** Show what is known at a time of the recording, or now. */
  draw(head, { isStale, age, places, isRecording, seconds }) {
    const { lane } = this;
    this.element.classList.toggle('stale', isStale);
    head ??= 0; // nothing is known: what the pictures will show
    drawWave(this.find('.wave'), lane, head);
    drawSpectrogram(this.find('.spectrogram'), lane, head);
    drawProbabilities(this.find('.probabilities canvas'), lane, head, seconds);
    drawPlane(this.find('.plane canvas'), lane, head, places);
    this.showDecision(head, isRecording, isStale, age);
    this.showUtterances(head, isRecording);
    if (performance.now() - this.described > 1000) this.describe(head);
  }

  showDecision(head, isRecording, isStale, age) {
    const { lane } = this;
    const change = lastBefore(lane.speech, head);
    const isSpeaking = !isStale && (isRecording ? Boolean(change?.[1]) : lane.speaking);
    this.find('.speaking').dataset.speaking = isSpeaking;
    setText(this.find('.speaking .text'), isSpeaking ? 'speaking' : isStale ? `no news for ${Math.round(age)} s` : 'silent');
    setText(this.find('.level'), lane.level === null || isRecording || isStale ? '' : `${Math.round(lane.level)} dB`);
    const mood = lastBefore(lane.mood, head);
    setText(this.find('.mood'), mood
      ? `Mood over the last utterances: ${wordsFor(mood[1], mood[2])} (valence ${mood[1].toFixed(2)}, arousal ${mood[2].toFixed(2)})`
      : 'No mood yet: it is the mean of the last utterances.');
    const decision = lastBefore(lane.decisions, head, (item) => item.time);
    const last = lastBefore(lane.utterances, head, (item) => item.time);
    const shown = !decision || (last && last.time >= decision.time) ? last : decision;
    const expression = shown ? shown.expression ?? UNCERTAIN : '';
    this.find('.verdict').dataset.expression = expression;
    dress(this.find('.decision'), expression);
    setText(this.find('.glyph'), shown ? glyphOf(expression) : '·');
    setText(this.find('.expression'), expression || 'nothing yet');
    const confidence = shown?.confidence ?? 0;
    let detail = '';
    if (shown) {
      detail = shown.expression === null
        ? `most probable: ${shown.leading ?? 'nothing'}, ${percent(confidence)}`
        : `${percent(confidence)} confident; ${wordsFor(shown.valence, shown.arousal)}`;
    }
    setText(this.find('.detail'), detail);
    const meter = this.find('.meter');
    meter.setAttribute('aria-valuenow', Math.round(confidence * 100));
    meter.firstElementChild.style.width = `${Math.min(100, confidence * 100)}%`;
    const ago = shown ? Math.max(0, head - shown.time) + (isStale ? age : 0) : null;
    setText(this.find('.age'), ago === null ? '' : ago < 1.5 ? 'now' : `${Math.round(ago)} s ago`);
  }

  showUtterances(head, isRecording) {
    const list = this.find('.utterances ol');
    const shown = this.lane.utterances.filter((item) => !isRecording || item.time <= head + 0.01);
    const ids = new Set(shown.map((item) => item.id));
    for (const [id, card] of this.cards) {
      if (!ids.has(id)) {
        card.remove();
        this.cards.delete(id);
      }
    }
    for (const item of shown) {
      if (!this.cards.has(item.id)) {
        const card = this.makeCard(item);
        this.cards.set(item.id, card);
        list.prepend(card);
        if (!isRecording) this.handlers.announce(this.name, item);
      }
    }
  }

  makeCard(item) {
    const expression = item.expression ?? UNCERTAIN;
    const card = document.createElement('li');
    card.classList.toggle('uncertain', item.expression === null);
    dress(card, expression);
    const what = document.createElement('div');
    what.className = 'what';
    const mark = document.createElement('span');
    mark.className = 'mark';
    mark.setAttribute('aria-hidden', 'true');
    mark.textContent = glyphOf(expression);
    const detail = document.createElement('small');
    detail.textContent = `${this.handlers.clockOf(item.time)}${item.start === null ? '' : `, ${(item.time - item.start).toFixed(1)} s`}`;
    what.append(mark, ` ${expression} ${percent(item.confidence)}`, detail);
    card.append(what);
    if (item.start !== null && this.handlers.canPlay()) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = '▶';
      button.setAttribute('aria-label', `Play the utterance of ${this.handlers.clockOf(item.time)}, ${expression}`);
      button.addEventListener('click', () => this.handlers.play(this.name, item, button));
      card.append(button);
    }
    return card;
  }

  /** For those who do not see the pictures. */
  describe(head) {
    this.described = performance.now();
    const { lane } = this;
    const last = lastBefore(lane.windows, head);
    const spoken = last ? lane.classes.map(([name], i) => `${name} ${percent(last[1][i])}`).join(', ') : 'none yet';
    this.find('.probabilities canvas').setAttribute('aria-label', `Probabilities over the last seconds; now: ${spoken}`);
    const decision = lastBefore(lane.decisions.filter((d) => d.valence !== null), head, (item) => item.time);
    this.find('.plane canvas').setAttribute('aria-label', decision
      ? `Valence ${decision.valence.toFixed(2)}, arousal ${decision.arousal.toFixed(2)}: ${wordsFor(decision.valence, decision.arousal)}`
      : 'No decision yet');
  }
}

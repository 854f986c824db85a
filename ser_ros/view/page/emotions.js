// How an emotion looks: never by its colour alone, but with a shape and its name.

const GLYPHS = {
  neutral: '●', happy: '▲', sad: '▼', angry: '◆', scared: '✚', disgusted: '■', surprised: '★', uncertain: '?',
};

export const UNCERTAIN = 'uncertain';

export function glyphOf(expression) {
  return Object.hasOwn(GLYPHS, expression) ? GLYPHS[expression] : '○';
}

export function variableOf(expression) {
  return Object.hasOwn(GLYPHS, expression) ? `--${expression}` : '--other';
}

/** A colour of the current scheme, for a canvas. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function wordsFor(valence, arousal) {
  const pleasant = valence > 0.15 ? 'pleasant' : valence < -0.15 ? 'unpleasant' : 'neither pleasant nor unpleasant';
  const excited = arousal > 0.15 ? 'excited' : arousal < -0.15 ? 'calm' : 'neither calm nor excited';
  return `${pleasant}, ${excited}`;
}

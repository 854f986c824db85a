"""Labels of a corpus → classes, as the recipe's key `data.labels` maps them."""

from collections.abc import Mapping
from typing import Any, Optional

from ser_ros import SerError
from ser_ros.emotions import EMOTIONS, OTHERS, Emotion, class_of, plain_word
from ser_ros.settings import from_dict

UNUSED = ''
"""The class of labels that are mapped to nothing."""

KNOWN = (
    f"known are {', '.join(EMOTIONS)}; data.labels maps others, as in '{{bored: bored}}', "
    f'to these, to {", ".join(OTHERS)}, to nothing (null), or to '
    '{expression: EXPRESSION, valence: V, arousal: A}'
)
"""What a label can be, for messages."""


class LabelMap:
    """The classes of labels; SerError for an invalid map.

    `data.labels` is LABEL → CLASS, or CORPUS:LABEL → CLASS for one corpus alone. CLASS is a name of
    `emotions.EMOTIONS` or `emotions.OTHERS`; null for clips that are not used; or a class of one's
    own with the keys `expression`, `valence`, `arousal` and perhaps `source`, where these come from,
    and `name`, if that is not the label. Valence and arousal may be left out where this package
    knows them for the expression.
    """

    def __init__(self, labels: Mapping[str, Any]):
        self.own: dict[str, Emotion] = {}
        """Classes that are not in `emotions.EMOTIONS`, and what they mean."""
        self._classes = {_key(label): self._read(label, value) for label, value in labels.items()}

    def find(self, corpus: str, label: str, default: Optional[str]) -> Optional[str]:
        """The class of a corpus's label, or UNUSED; `default` for a label without an entry."""
        label = plain_word(label)
        return self._classes.get((corpus, label), self._classes.get((None, label), default))

    def _read(self, label: str, value: Any) -> str:
        where = f'data.labels: {label}'
        if value is None:
            return UNUSED
        if isinstance(value, str):
            if (known := class_of(value)) is not None:
                return known
            name, meaning = plain_word(value), OTHERS.get(plain_word(value))
            if meaning is None:
                raise SerError(f'{where}: {value!r} is not a class; {KNOWN}')
        elif isinstance(value, dict):
            name, meaning = _read_own(value, _key(label)[1], where)
        else:
            raise SerError(f'{where} is {value!r}, not the name of a class, null or a mapping')
        if self.own.setdefault(name, meaning) != meaning:
            raise SerError(f'{where}: the class {name} has two meanings; give one of them a name')
        return name


def _read_own(value: Mapping[str, Any], label: str, where: str) -> tuple[str, Emotion]:
    values = dict(value)
    name = values.pop('name', label)
    if not isinstance(name, str) or not name.strip() or class_of(name) is not None:
        raise SerError(f'{where}: name is {name!r}, not that of a new class')
    expression = values.get('expression')
    for known in (*OTHERS.values(), *EMOTIONS.values()):
        if known.expression == expression and not values.keys() & {'valence', 'arousal'}:
            values |= {'valence': known.valence, 'arousal': known.arousal, 'source': known.source}
            break
    else:
        values = {'source': 'not stated', **values}
    try:
        return plain_word(name), from_dict(Emotion, values)
    except SerError as error:
        raise SerError(f'{where}: {error}') from error


def _key(label: str) -> tuple[Optional[str], str]:
    corpus, colon, rest = label.partition(':')
    return (corpus, plain_word(rest)) if colon else (None, plain_word(label))

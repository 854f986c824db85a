"""A training recipe: all settings that a trained model depends on, in one YAML file."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Union

import yaml

from ser_ros import SerError
from ser_ros.bundle_info import WINDOW_RANGE
from ser_ros.emotions import LABELS
from ser_ros.files import user_path
from ser_ros.frontend_config import FrontendConfig, LogMelConfig
from ser_ros.models import default_hyperparameters
from ser_ros.settings import from_dict
from ser_ros.shipped import shipped_file, shipped_recipes
from ser_ros.training.labels import LabelMap


@dataclass(frozen=True)
class DataConfig:
    """The training data."""

    corpora: tuple[str, ...] = ('RAVDESS',)
    """Names of the corpora, as `python -m ser_ros corpus` prints them."""
    labels: dict[str, Any] = field(default_factory=dict)
    """A corpus's label → its class, nothing (null), or a class of one's own, see `labels.LabelMap`:
    `{bored: bored, cough: null, EmoDB:L: {expression: bored, valence: -0.6, arousal: -0.6}}`."""
    merge: dict[str, str] = field(default_factory=dict)
    """Class → the class that replaces it, such as calm → neutral: a common vocabulary."""
    balance_classes: bool = False
    """Draw clips so that all classes are equally frequent; otherwise each clip once an epoch."""
    balance_corpora: bool = False
    """Draw clips so that all corpora are equally frequent; with `balance_classes` the classes of
    each corpus are."""
    corpus_weights: dict[str, float] = field(default_factory=dict)
    """Corpus → how often its clips are drawn with `balance_corpora`, relative to 1 for others."""
    mask_absent_classes: bool = False
    """Leave classes that a clip's corpus does not have out of its loss: a corpus without fear does
    not teach that a voice is not afraid."""
    epoch_clips: int = 0
    """Clips of an epoch where they are drawn with replacement; 0: as many as there are."""
    noisy_copies: int = 0
    """Copies of each training clip, each with other white noise, in addition to the clip itself."""
    nonspeech: float = 0.0
    """Share of windows that are replaced by sound without a voice, trained to be uncertain."""

    @property
    def draws(self) -> bool:
        """Whether clips are drawn with replacement."""
        return self.balance_classes or self.balance_corpora

    def weight(self, corpus: int) -> float:
        """The weight of the corpus of this index."""
        return self.corpus_weights.get(self.corpora[corpus], 1.0)

    def __post_init__(self):
        LabelMap(self.labels)
        _distinct(self, 'corpora')
        _at_least(0, self, 'noisy_copies', 'epoch_clips')
        _within_one(self, 'nonspeech')
        for name, weight in self.corpus_weights.items():
            if name not in self.corpora and name not in LABELS:
                raise SerError(f'corpus_weights has {name}, which is not in corpora')
            if weight <= 0:
                raise SerError(f'the weight of {name} is {weight}, not positive')


@dataclass(frozen=True)
class VoiceConfig:
    """Training as for a stream that knows a voice from earlier: see `stream.adaptation`."""

    copies: int = 0
    """Augmented copies of each clip, beside the clip as it is. Their features are computed once,
    before the training, and crops of them are drawn; a voice's mean is that over all of its copies.
    0: features are standardised by the training set alone, and each epoch augments anew."""
    clean_probability: float = 1 / 6
    """Of drawing a clip as it is, where there are copies, rather than one of these; by default as often
    as each of five copies."""
    memory: float = 24.0
    """After n utterances a voice's own mean has the weight n / (n + memory), the training set's
    mean has the rest."""
    history: tuple[int, int] = (1, 60)
    """Utterances that a voice is pretended to be known from."""
    unknown_probability: float = 0.1
    """Share of voices of which nothing is known."""
    by_answers: bool = False
    """Whether a model that is not trained so adapts, too: its stream compares the answers with those that
    the voice usually gets."""

    def __post_init__(self):
        _at_least(0, self, 'copies')
        if self.memory <= 0:
            raise SerError(f'memory is {self.memory}, not positive')
        _within_one(self, 'clean_probability')
        _within_one(self, 'unknown_probability')
        if not 1 <= self.history[0] <= self.history[1]:
            raise SerError(
                f'history is from {self.history[0]} to {self.history[1]}, not rising from 1'
            )


@dataclass(frozen=True)
class SplitConfig:
    """The training, validation and test set."""

    protocol: str = 'folds'
    """folds (published), folds_or_speakers (as speakers, where no folds are published),
    leave_one_speaker_out, speakers (n_folds folds of them), corpora (those in left_out are the
    test set), or random, which is not speaker-independent."""
    fold: int = 1
    """Fold to test on, from 1; the same number in each corpus."""
    n_folds: int = 5
    """Number of folds of the protocols speakers and random."""
    n_validation: int = 4
    """Validation speakers that are taken out of each corpus's training set."""
    left_out: tuple[str, ...] = ()
    """Protocol corpora: the corpora that are not trained on. There is no validation set."""
    validation_speakers: tuple[str, ...] = ()
    """Validation speakers by name instead: `03`, or `RAVDESS:03` if there are several corpora."""

    def __post_init__(self):
        known = (
            'folds',
            'folds_or_speakers',
            'leave_one_speaker_out',
            'speakers',
            'corpora',
            'random',
        )
        _one_of('protocol', self.protocol, known)
        _distinct(self, 'left_out', 'validation_speakers')
        if (self.protocol == 'corpora') != bool(self.left_out):
            raise SerError(
                f'the protocol is {self.protocol} and left_out {list(self.left_out)}: set '
                'left_out with the protocol corpora, and only then'
            )


FOLDERS = ('noise_folder', 'reverb_folder')
"""Settings of the augmentation that are folders of the machine that trains."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Changes of a training clip, drawn again for each epoch; ranges are uniform."""

    crop: tuple[float, float] = (1.0, 3.0)
    """Seconds of a window, like the stream's."""
    edge_jitter: float = 0.15
    """Seconds by which detected speech may begin or end too early or too late."""
    onset_probability: float = 0.5
    """Share of windows that begin where speech begins, like most of the stream's."""
    whole_probability: float = 0.5
    """Share of windows as long as possible, like those that decide an utterance."""
    speed: tuple[float, float] = (0.88, 1.12)
    """Speed factor; it also changes pitch and formants, like a speaker outside the corpus."""
    pitch_probability: float = 0.0
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    """Change of pitch alone, at the same speed."""
    silence_probability: float = 0.0
    silence: tuple[float, float] = (0.05, 0.3)
    """Seconds of digital silence somewhere in the window."""
    reverb_probability: float = 0.0
    reverb_rt60: tuple[float, float] = (0.2, 0.8)
    """Seconds in which a generated room's sound decays by 60 dB."""
    reverb_folder: str = ''
    """Folder of room impulse responses to draw from instead."""
    noise_probability: float = 0.5
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    noise_folder: str = ''
    """Folder of recordings to draw half of the noises from; the others are white. Every third
    recording is left for the evaluation under conditions, see `data.noise`."""
    equalizer_probability: float = 0.0
    equalizer_db: float = 5.0
    """Standard deviation of the response of a random microphone, which is smooth over the mel axis."""
    band_limit_probability: float = 0.0
    band_limit: tuple[float, float] = (3_000.0, 7_000.0)
    """Hz from which on sound is cut off, like a telephone's or a codec's."""
    gain_db: tuple[float, float] = (-30.0, 5.0)
    mel_shift: float = 0.0
    """Most bands by which the spectrogram is shifted up or down, like another vocal tract."""
    mel_masks: int = 2
    mel_mask_width: int = 8
    time_masks: int = 2
    time_mask_width: int = 20
    """SpecAugment (Park et al., 2019), in bands and frames."""
    mixup_alpha: float = 0.2
    """Beta parameter of mixup (Zhang et al., 2018); 0 turns it off."""

    def __post_init__(self):
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, tuple) and not value[0] <= value[1]:
                raise SerError(
                    f'{setting.name} is from {value[0]} to {value[1]}; the first number must not be '
                    'larger'
                )
            if setting.name.endswith('_probability'):
                _within_one(self, setting.name)
        shortest, longest = WINDOW_RANGE
        if not shortest <= self.crop[1] <= longest:
            raise SerError(
                f'crop ends at {self.crop[1]} s; the longest window must be between {shortest:g} '
                f'and {longest:g} s'
            )
        for name in ('crop', 'speed', 'reverb_rt60', 'band_limit'):
            if getattr(self, name)[0] <= 0:
                raise SerError(f'{name} begins at {getattr(self, name)[0]}, it must be positive')
        if self.silence[0] < 0:
            raise SerError(f'silence begins at {self.silence[0]}, not at 0 or more')
        _at_least(0, self, 'edge_jitter', 'equalizer_db', 'mel_shift', 'mixup_alpha')
        _at_least(0, self, 'mel_masks', 'mel_mask_width', 'time_masks', 'time_mask_width')


@dataclass(frozen=True)
class OptimizationConfig:
    """How the weights are optimised."""

    epochs: int = 100
    batch_size: int = 32
    """Most clips of a batch; all batches of an epoch are equally large, but for one clip."""
    optimizer: str = 'adamw'
    """adamw or sgd."""
    learning_rate: float = 1e-3
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 1e-2
    schedule: str = 'one_cycle'
    """one_cycle (torch's, which also cycles the momentum), cosine, step or constant; each batch."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before cosine, step or constant; one_cycle has its own."""
    step_epochs: int = 30
    step_factor: float = 0.1
    """Schedule step: the learning rate is multiplied by the factor after each `step_epochs`."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    loss: str = 'cross_entropy'
    """cross_entropy, or focal (Lin et al., 2017)."""
    focal_gamma: float = 2.0
    class_weights: bool = False
    """Weight each class by the inverse of its share of the training set."""
    label_smoothing: float = 0.1
    average: str = 'ema'
    """Weights that are validated and kept: ema, swa (Izmailov et al., 2018) or none (the last)."""
    ema_decay: float = 0.99
    """Per step."""
    swa_start: float = 0.75
    """Share of the epochs after which the stochastic weight average begins."""
    early_stopping: int = 0
    """Stop after so many epochs without a better validation accuracy; 0 for never."""
    precision: str = '32-true'
    """32-true, bf16-mixed or 16-mixed; bf16-mixed takes half the time on a CPU that supports it."""

    def __post_init__(self):
        _one_of('optimizer', self.optimizer, ('adamw', 'sgd'))
        _one_of('schedule', self.schedule, ('one_cycle', 'cosine', 'step', 'constant'))
        _one_of('loss', self.loss, ('cross_entropy', 'focal'))
        _one_of('average', self.average, ('ema', 'swa', 'none'))
        _one_of('precision', self.precision, ('32-true', 'bf16-mixed', '16-mixed'))
        _at_least(1, self, 'epochs', 'batch_size', 'step_epochs')
        _at_least(0, self, 'learning_rate', 'weight_decay', 'warmup_epochs', 'step_factor')
        _at_least(0, self, 'gradient_clip', 'focal_gamma', 'early_stopping')
        _within_one(self, 'momentum', 'label_smoothing', 'ema_decay', is_open=True)
        _within_one(self, 'swa_start')


@dataclass(frozen=True)
class DistillationConfig:
    """A trained model as the teacher: its probabilities are targets beside the labels."""

    teacher: str = ''
    """A bundle, the name of a shipped one or a .safetensors file, of the same sample rate, that
    knows all classes; '' for none."""
    weight: float = 0.5
    """Share of its probabilities in the targets."""
    temperature: float = 2.0
    """Its logits are divided by this, in place of its calibrated temperature."""

    def __post_init__(self):
        _within_one(self, 'weight')
        if self.temperature <= 0:
            raise SerError(f'temperature is {self.temperature}, not positive')


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run; `name` is the name of the recipe, without `.yaml`."""

    name: str = 'unnamed'
    seed: int = 1
    deterministic: bool = True
    """The same seed on the same machine has the same metrics to the last digit."""
    architecture: str = 'parallel_cnn_transformer'
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ''
    """What to start from: a bundle (the name of a shipped one, or a .safetensors file) of the same
    architecture, hyperparameters and front-end, whose statistics are kept; for vgg and vggish also
    published weights: `published`, in torch's cache, or a file; '' to start from nothing."""
    freeze: int = 0
    """The first stages, see `models.transfer.stages`, that are not trained."""
    frontend: FrontendConfig = field(default_factory=LogMelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    voice: VoiceConfig = field(default_factory=VoiceConfig)
    refit: bool = False
    """Train again from the start with the validation set, after calibration without it."""
    quick: bool = False
    """A trial of settings, which card and report mark as such: every second clip of the validation
    and the test set is evaluated, sounds without a voice are not. It cannot refit."""
    target_accuracy: float = 0.75
    """Share of right expressions on the validation set that sets the decision threshold."""

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise SerError(f'seed is {self.seed}, not from 0 to {2**32 - 1}')
        _within_one(self, 'target_accuracy')
        if self.quick and self.refit:
            raise SerError('a quick trial is not refitted: set refit=false, or quick=false')
        if self.data.epoch_clips and not self.data.draws:
            raise SerError(
                'epoch_clips is for clips drawn with replacement: set balance_classes or '
                'balance_corpora'
            )
        if self.voice.copies and self.data.noisy_copies:
            raise SerError('noisy_copies cannot be used with voice.copies: set one of them to 0')
        if self.voice.copies and self.distillation.teacher:
            raise SerError('a teacher needs sound, not copies of features: set voice.copies to 0')


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SerError(f'{name} is {value!r}, not one of {", ".join(known)}')


def _at_least(least: int, config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise SerError(f'{name} is {getattr(config, name)}, not {least} or more')


def _distinct(config: Any, *names: str) -> None:
    for name in names:
        repeated = [value for value, n in Counter(getattr(config, name)).items() if n > 1]
        if repeated:
            raise SerError(f'{name} has {", ".join(repeated)} more than once')


def _within_one(config: Any, *names: str, is_open: bool = False) -> None:
    """SerError unless the values are from 0 to 1; `is_open`: below 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (is_open and value == 1):
            raise SerError(
                f'{name} is {value}, not {"from 0 to below 1" if is_open else "between 0 and 1"}'
            )


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, which YAML 1.1 does not, and refuses a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """YAMLError for a repeated key: one of the two values would be lost."""
        names = [key.value for key, _ in node.value]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f'the key {repeated[0]} is repeated', node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+'),
    list('-+.0123456789'),
)


def load_recipe(name: Union[str, Path], overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by its name, or a file; its `inherit` key names a file to start from.

    `overrides`: `key=value` or `key.key=value`, the value in YAML. SerError for an unreadable
    file, an unknown key (with the nearest known one), an invalid value, and a file that has the
    name of a shipped recipe but other settings.
    """
    path = user_path(name)
    is_file = path.suffix == '.yaml'
    if not is_file:
        path = shipped_file(f'config/recipes/{name}.yaml')
        if not path.is_file():
            known = ', '.join(shipped_recipes())
            raise SerError(f'no recipe {str(name)!r}; use a .yaml file or one of {known}')
    try:
        values = _read(path, ())
        if is_file:
            name = _name_of(path, values)
        return _make(str(name), values, overrides)
    except SerError as error:
        raise SerError(f'recipe {path}: {error}') from error


def explicit_settings(name: Union[str, Path], overrides: Sequence[str] = ()) -> frozenset[str]:
    """`key.key` of what the user sets: by overrides, and in files that are not shipped recipes.

    `name` and SerError as for `load_recipe`; '' for a recipe without a file.
    """
    values: dict[str, Any] = {}
    if Path(name).suffix == '.yaml':
        values = _read(Path(name), (), with_shipped=False)
    for override in overrides:
        values = _merge(values, _parse(override))
    return frozenset(key for key, _ in _flatten(values))


def make_recipe(name: str, values: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe without a file, from its settings; `overrides` and errors as in `load_recipe`."""
    try:
        return _make(name, values, overrides)
    except SerError as error:
        raise SerError(f'recipe {name}: {error}') from error


def _make(name: str, values: dict, overrides: Sequence[str]) -> Recipe:
    for override in overrides:
        values = _merge(values, _parse(override))
    if 'name' in values:
        raise SerError('name is not a setting: a recipe has the name of its file')
    return from_dict(Recipe, {**values, 'name': name})


def _name_of(path: Path, values: dict) -> str:
    """The file's name; that of a shipped recipe only for its own settings: results are named so."""
    alike = [n for n in shipped_recipes() if path.stem in (Path(n).name, n.replace('/', '_'))]
    for name in alike:
        if _read(shipped_file(f'config/recipes/{name}.yaml'), ()) == values:
            return name
    if alike:
        raise SerError(f'{alike[0]} is a shipped recipe with other settings: rename the file')
    return path.stem


def _parse(override: str) -> dict:
    keys, separator, text = override.partition('=')
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise SerError(f'{override!r}: {" ".join(str(error).split())}') from error
    if not separator or not keys:
        raise SerError(f'{override!r} is not KEY=VALUE')
    for key in reversed(keys.split('.')):
        value = {key: value}
    return value


def _read(path: Path, heirs: tuple[Path, ...], with_shipped: bool = True) -> dict:
    """The settings of a file and of those that it inherits from."""
    path = path.resolve()
    if path in heirs:
        raise SerError(f'{path.name} inherits from itself')
    if not with_shipped and _is_shipped(path):
        return {}
    try:
        values = yaml.load(path.read_text(), _Loader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SerError(f'{path.name} cannot be read: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict):
        raise SerError(f'{path.name} is not a mapping of keys to values')
    parent = values.pop('inherit', None)
    if parent is None:
        return values
    return _merge(_read(path.parent / str(parent), (*heirs, path), with_shipped), values)


def _is_shipped(path: Path) -> bool:
    """Whether this is a shipped recipe, or a copy of one."""
    folder = shipped_file('config/recipes')
    namesakes = (folder / path.name, folder / path.parent.name / path.name)
    return any(
        other.is_file() and path.is_file() and other.read_bytes() == path.read_bytes()
        for other in namesakes
    )


def _merge(base: dict, override: dict) -> dict:
    """`base` with what `override` has; an empty mapping replaces one that is not."""
    merged = dict(base)
    for key, value in override.items():
        both = value and isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


# --- Comparing recipes -------------------------------------------------------------------------

OF_A_RUN = ('name', 'seed', 'split.fold')
"""Settings in which the runs of one cross-validation may differ."""


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as JSON returns them; hyperparameters with the defaults of today."""
    defaults = default_hyperparameters(recipe.architecture)
    values = {**asdict(recipe), 'hyperparameters': {**defaults, **recipe.hyperparameters}}
    return json.loads(json.dumps(values))


def shared_recipe(recipe: Recipe) -> dict[str, Any]:
    """`plain_recipe` to be stored and shared: folders and files by name, wherever they are here."""
    values = plain_recipe(recipe)
    values['pretrained'] = Path(values['pretrained']).name
    values['distillation']['teacher'] = Path(values['distillation']['teacher']).name
    for key in FOLDERS:
        values['augmentation'][key] = Path(values['augmentation'][key]).name
    return values


def flat_settings(recipe: Recipe, ignored: Sequence[str] = OF_A_RUN) -> dict[str, Any]:
    """`key.key` → value of all settings that are not ignored."""
    settings = dict(_flatten(plain_recipe(recipe)))
    return {key: value for key, value in settings.items() if key not in ignored}


def _flatten(values: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def differences(recipe: Recipe, other: Recipe, ignored: Sequence[str] = OF_A_RUN) -> list[str]:
    """`key=value` of each setting of `recipe` that has another value in `other`."""
    mine, theirs = flat_settings(recipe, ignored), flat_settings(other, ignored)
    changed = [
        f'{key}={value if value and isinstance(value, str) else json.dumps(value)}'
        for key, value in mine.items()
        if key not in theirs or theirs[key] != value
    ]
    return changed + [f'no {key}' for key in theirs if key not in mine]

"""A training run: fit by a recipe, calibrate, and write the bundle."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from filelock import FileLock, Timeout

from ser_ros import SerError, speech_encoder
from ser_ros.bundle import Bundle, load_bundle, save_bundle, weights_of
from ser_ros.bundle_info import ON_VALIDATION, AdaptationInfo, BundleInfo
from ser_ros.files import make_folder, write_atomically
from ser_ros.frontend_config import SpeechEncoderConfig
from ser_ros.models import default_hyperparameters
from ser_ros.programs import hash_weights
from ser_ros.settings import from_dict
from ser_ros.training.adjustment import ADJUSTED, adjust_recipe
from ser_ros.training.data.corpora import (
    Corpus,
    CorpusPath,
    joint_license,
    license_of,
    read_corpora,
)
from ser_ros.training.data.dataset import Utterance
from ser_ros.training.data.splits import Split, split_corpora
from ser_ros.training.evaluation.calibration import calibrate
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.finetuning import finetuning_labels, finetuning_recipe
from ser_ros.training.learning.distillation import make_teacher
from ser_ros.training.learning.fit import Compute, Fit, is_slow_in_bf16
from ser_ros.training.learning.pretrained import (
    Sources,
    joined,
    load_sources,
    mark_known,
    run_digest,
)
from ser_ros.training.learning.task import EmotionTask
from ser_ros.training.learning.train import fit_task, load_subset, make_model, prepare_fit
from ser_ros.training.recipe import Recipe, differences, shared_recipe

logger = logging.getLogger(__name__)

RECIPE_FILE, SPLIT_FILE = 'recipe.json', 'split.sha256'
"""Files in a run's folder that state which recipe and which data it belongs to."""


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    bundle: Path
    split: Split
    history: list[dict[str, float]]
    """One row an epoch, see `fit.Fit`."""
    validation: list[ClipResult]
    """Results of the validation set; if the recipe refits, those of the model before the refit."""


def train(
    recipe: Recipe,
    corpora: Sequence[CorpusPath],
    out: Path,
    compute: Optional[Compute] = None,
    explicit: Optional[Collection[str]] = None,
) -> Optional[Run]:
    """Train on the corpora in these folders; write bundle, checkpoints and logs to `out`.

    `explicit`: settings that stay as they are, see `adjustment`; None: all, so that the corpora
    must be the recipe's. An interrupted run continues from its last completed epoch. Returns None
    in all processes but the first. SerError if a corpus, a split or a device is missing, the folder
    holds another run, or the loss is not finite.
    """
    # What does not fit is reported before the corpora are read.
    _check_recipe(out, recipe, () if explicit is None else ADJUSTED)
    load_sources(recipe)
    loaded = load_corpora(corpora, recipe.data.labels)
    if explicit is not None:
        recipe = adjust_recipe(recipe, loaded, explicit)
    return train_split(recipe, split_corpora(recipe, loaded), out, compute)


def finetune(
    bundle: str,
    corpora: Sequence[CorpusPath],
    overrides: Sequence[str],
    out: Path,
    compute: Optional[Compute] = None,
) -> Optional[Run]:
    """`train` a bundle on other corpora, by the recipe of `finetuning_recipe`."""
    # A damaged bundle is reported before the corpora are read.
    labels = finetuning_labels(load_bundle(bundle).info, overrides)
    loaded = load_corpora(corpora, labels)
    recipe = finetuning_recipe(bundle, loaded, overrides)
    return train_split(recipe, split_corpora(recipe, loaded), out, compute)


def load_corpora(
    paths: Sequence[CorpusPath], labels: Optional[Mapping[str, Any]] = None
) -> list[Corpus]:
    """`read_corpora`, with a warning about the files that cannot be used."""
    corpora = read_corpora(paths, labels or {})
    for corpus in corpora:
        if corpus.left_out:
            logger.warning(corpus.left_out)
    return corpora


def train_split(
    recipe: Recipe, split: Split, out: Path, compute: Optional[Compute] = None
) -> Optional[Run]:
    """`train` with a split that is already made."""
    compute = compute or Compute()
    if not split.validation and recipe.split.protocol != 'corpora':
        if not recipe.voice.copies:
            raise SerError(
                'the validation set is empty; calibration needs it: set split.n_validation'
            )
        logger.warning(
            'the validation set is empty: the bundle decides every expression until `calibrate` '
            'sets its temperature and threshold'
        )
    if recipe.optimization.precision == 'bf16-mixed' and is_slow_in_bf16(compute.device):
        logger.warning(
            'this processor does not support bf16, which takes several times as long: '
            '--set optimization.precision=32-true'
        )
    sources = load_sources(recipe)
    split = mark_known(split, *(bundle.info for bundle in sources))
    # A model that cannot be built is reported before the sound is read, which takes minutes.
    make_model(recipe, split.class_names, sources.start)
    make_teacher(recipe, split.class_names, sources.teacher)
    _check_claim(out, recipe, run_digest(split, sources))
    training = load_subset(recipe, split, 'train', compute.cache)
    validation = (
        load_subset(recipe, split, 'validation', compute.cache) if split.validation else []
    )
    with _lock(out):
        task, fitted = _fit(recipe, split, training, validation, out, compute, sources)
        refitted = None
        if recipe.refit:
            utterances = [*training, *validation]
            refitted, _ = _fit(recipe, split, utterances, [], out / 'refit', compute, sources)
        if not fitted.is_first_process:
            return None
        path = bundle_path(out, recipe)
        results = _write_bundle(path, recipe, split, task, refitted, compute.device, sources)
        return Run(path, split, fitted.history, results)


def bundle_path(out: Path, recipe: Recipe) -> Path:
    """Where a run of the recipe writes its bundle."""
    return out / f'{recipe.name.replace("/", "_")}.safetensors'


def _fit(
    recipe: Recipe,
    split: Split,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    out: Path,
    compute: Compute,
    sources: Sources,
) -> tuple[EmotionTask, Fit]:
    task, data = prepare_fit(recipe, split.class_names, training, validation, compute, sources)
    _claim(out, recipe, run_digest(split, sources))
    return task, fit_task(task, data, out, compute)


def _write_bundle(
    path: Path,
    recipe: Recipe,
    split: Split,
    task: EmotionTask,
    refitted: Optional[EmotionTask],
    device: str,
    sources: Sources,
) -> list[ClipResult]:
    """Calibrate the task on the validation set and write the bundle; return the results there.

    The weights are those of `refitted`, if there is one; temperature and threshold stay. Without a
    validation set temperature is 1, and all expressions are decided.
    """
    bundle = Bundle(_bundle_info(recipe, split), task.frontend.eval(), task.model.eval(), path)
    results, metrics = [], {}
    if split.validation:
        results = calibrate(bundle, split.validation, device)
        metrics = {'validation': compute_metrics(results, bundle.info.class_names)}
        if split.known:
            metrics['validation']['protocol'] = split.protocol
    info = dataclasses.replace(bundle.info, metrics=metrics)
    if refitted:
        task = refitted
        corpora = {
            corpus: {
                'train': sorted({*subsets['train'], *subsets['validation']}),
                'test': subsets['test'],
            }
            for corpus, subsets in info.corpora.items()
        }
        info = dataclasses.replace(info, corpora=corpora)
    for source in sources:
        info = joined(info, source.info)
    if sources.start:
        info = dataclasses.replace(info, adaptation=_expecting(info, sources.start.info))
    if not _is_written(path, info, task):
        save_bundle(path, info, task.frontend, task.model)
    return results


def _expecting(info: BundleInfo, source: BundleInfo) -> AdaptationInfo:
    """The adaptation of a bundle, with the shares of classes that its source expects."""
    return dataclasses.replace(
        info.adaptation,
        neutral_share=source.adaptation.neutral_share,
        rare_ratio=source.adaptation.rare_ratio,
    )


def _is_written(path: Path, info: BundleInfo, task: EmotionTask) -> bool:
    """Whether the bundle of this run is there: it may have been calibrated or evaluated since."""
    if not path.is_file():
        return False
    try:
        before = load_bundle(path)
    except SerError:
        return False
    stored = hash_weights(weights_of(before.frontend, before.model))
    trained = hash_weights(weights_of(task.frontend, task.model))
    is_same = stored == trained and before.info.recordings == info.recordings
    if is_same and before.info != info:
        logger.warning(
            f'{path} is of this run, and was changed since: it is kept; remove it to write it anew'
        )
    return is_same


def _bundle_info(recipe: Recipe, split: Split) -> BundleInfo:
    """The metadata of a bundle that is not calibrated yet."""
    return BundleInfo(
        architecture=recipe.architecture,
        # With defaults: a bundle must load even if another version has other defaults.
        hyperparameters={
            **default_hyperparameters(recipe.architecture),
            **recipe.hyperparameters,
        },
        frontend=recipe.frontend,
        class_names=split.class_names,
        window=recipe.augmentation.crop[1],
        temperature=1.0,
        threshold=0.0,
        corpora=split.speakers(),
        recipe=shared_recipe(recipe),
        seed=recipe.seed,
        metrics={},
        license=_license(recipe),
        recordings=tuple(sorted({c.fingerprint for c in (*split.train, *split.validation)})),
        calibration=ON_VALIDATION if split.validation else 'nothing',
        classes=split.classes,
        adaptation=AdaptationInfo(
            by_voice=recipe.voice.copies > 0,
            by_answers=recipe.voice.by_answers,
            memory=recipe.voice.memory,
        ),
    )


def _license(recipe: Recipe) -> str:
    """The SPDX expression that the corpora and published weights of the front-end require."""
    licenses = [license_of(recipe.data.corpora)]
    if isinstance(recipe.frontend, SpeechEncoderConfig):
        licenses.append(speech_encoder.LICENSE)
    return joint_license(*licenses)


# --- The folder of a run -----------------------------------------------------------------------


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Reserve a run's folder for this training; SerError if another process uses it."""
    if {'LOCAL_RANK', 'NODE_RANK'} & os.environ.keys():  # the processes of one run share it
        yield
        return
    make_folder(out)
    try:
        # The lock ends with its process, even one that is killed; the file may stay.
        with FileLock(out / 'run.lock', timeout=0):
            yield
    except Timeout as error:
        raise SerError(
            f'{out}: another process is training there; choose another --out'
        ) from error


def _claim(out: Path, recipe: Recipe, digest: str) -> None:
    """Write to a run's folder which recipe it belongs to, and the digest of its data."""
    _check_claim(out, recipe, digest)
    make_folder(out)
    write_atomically(out / RECIPE_FILE, json.dumps(dataclasses.asdict(recipe), indent=2))
    write_atomically(out / SPLIT_FILE, digest)


def check_run(out: Path, recipe: Recipe, split: Split) -> None:
    """SerError if the folder holds a run of another recipe, on other clips or from other weights."""
    _check_claim(out, recipe, run_digest(split, load_sources(recipe)))


def _check_claim(out: Path, recipe: Recipe, digest: str) -> None:
    """SerError if the folder holds another run: a bundle must name what it was trained with."""
    _check_recipe(out, recipe)
    path = out / SPLIT_FILE
    if path.is_file() and path.read_text() != digest:
        raise SerError(
            f'{out} holds a run on other clips or from other weights: the corpus has changed '
            'since, or the bundle; choose another --out, or remove it'
        )


def _check_recipe(out: Path, recipe: Recipe, ignored: Sequence[str] = ()) -> None:
    path = out / RECIPE_FILE
    if not path.is_file():
        return
    try:
        before = from_dict(Recipe, json.loads(path.read_text()))
        changed = differences(before, recipe, ignored)
    except (SerError, ValueError) as error:
        changed = [str(error)]
    if changed:
        raise SerError(
            f'{out} holds a run of another recipe ({", ".join(changed)}); choose another --out, '
            'or remove it'
        )

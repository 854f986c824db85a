"""Published weights: found, checked, loaded. Stages of every model: frozen and trained."""

import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.models import MODELS, build_model
from ser_ros.models.transfer import freeze, load_published, published_parameters, stages

VGG16_CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
VGGISH = {
    'features.0': (64, 1, 3, 3),
    'features.3': (128, 64, 3, 3),
    'features.6': (256, 128, 3, 3),
    'features.8': (256, 256, 3, 3),
    'features.11': (512, 256, 3, 3),
    'features.13': (512, 512, 3, 3),
    'embeddings.0': (4096, 12288),
    'embeddings.2': (4096, 4096),
    'embeddings.4': (128, 4096),
}


@pytest.fixture(scope='module')
def vgg():
    return build_model('vgg', 64, 4, chunk_frames=32, chunk_stride=32)


@pytest.fixture
def vgg_weights(vgg):
    """Named as published, with random numbers; the classifier in a smaller size."""
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for layer in VGG16_CONVOLUTIONS:
        shape = vgg.features[layer].weight.shape
        weights[f'features.{layer}.weight'] = torch.randn(shape, generator=generator)
        weights[f'features.{layer}.bias'] = torch.randn(shape[0], generator=generator)
    for layer in (0, 3, 6):
        weights[f'classifier.{layer}.weight'] = torch.zeros(8, 8)
        weights[f'classifier.{layer}.bias'] = torch.zeros(8)
    return weights


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """An empty torch hub cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return folder


def test_vgg_from_the_hub_cache(vgg, vgg_weights, hub):
    torch.save(vgg_weights, hub / 'vgg16-397923af.pth')
    head = [parameter.clone() for parameter in vgg.head.parameters()]
    assert load_published(vgg) == hub / 'vgg16-397923af.pth'
    for name, weight in vgg.features.state_dict().items():
        assert (weight == vgg_weights[f'features.{name}']).all()
    assert all((a == b).all() for a, b in zip(head, vgg.head.parameters()))


def test_vgg_from_a_file_of_its_old_format(vgg, vgg_weights, tmp_path):
    path = tmp_path / 'mine.pth'
    torch.save(vgg_weights, path, _use_new_zipfile_serialization=False)
    assert load_published(vgg, str(path)) == path
    assert (vgg.features[28].bias == vgg_weights['features.28.bias']).all()


def test_vggish(hub):
    # A number for all of a layer, so that the file stays small.
    weights = {}
    for number, (name, shape) in enumerate(VGGISH.items(), start=1):
        weights[f'{name}.weight'] = torch.tensor(float(number)).expand(shape)
        weights[f'{name}.bias'] = torch.tensor(-float(number)).expand(shape[0])
    assert sum(weight.numel() for weight in weights.values()) == 72_141_184
    torch.save(weights, hub / 'vggish-10086976.pth')
    model = build_model('vggish', 64, 4)
    load_published(model, 'published')
    for number, name in enumerate(VGGISH, start=1):
        layer = model.get_submodule(name)
        assert (layer.weight == number).all()
        assert (layer.bias == -number).all()


def test_a_missing_file_is_named_with_where_to_get_it(vgg, hub, tmp_path):
    with pytest.raises(SerError) as caught:
        load_published(vgg)
    message = str(caught.value)
    assert message.startswith(f'{hub / "vgg16-397923af.pth"}: no such file')
    assert 'https://download.pytorch.org/models/vgg16-397923af.pth' in message
    assert '\n' not in message
    with pytest.raises(SerError, match=r'other\.pth: no such file.*https://'):
        load_published(vgg, tmp_path / 'other.pth')
    with torch.device('meta'):
        vggish = build_model('vggish', 64, 4)
    with pytest.raises(SerError, match=r'github\.com/harritaylor/torchvggish/.*\.pth'):
        load_published(vggish)


def missing(weights):
    del weights['features.28.bias']


def unknown(weights):
    weights['features.1.running_mean'] = torch.zeros(64)


def misshapen(weights):
    weights['features.0.weight'] = torch.zeros(64, 1, 3, 3)


def no_tensor(weights):
    weights['features.0.bias'] = [0.0] * 64


def no_name(weights):
    weights[7] = torch.zeros(1)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (missing, 'features.28.bias'),
        (unknown, 'features.1.running_mean'),
        (misshapen, 'features.0.weight'),
        (no_tensor, 'features.0.bias'),
        (no_name, '7'),
    ],
)
def test_other_weights_are_refused_and_nothing_changes(vgg, vgg_weights, tmp_path, change, named):
    before = [parameter.clone() for parameter in vgg.parameters()]
    change(vgg_weights)
    torch.save(vgg_weights, tmp_path / 'other.pth')
    with pytest.raises(SerError, match=rf'other\.pth: not .* Vgg; 1 of .* such as {named}'):
        load_published(vgg, tmp_path / 'other.pth')
    assert all((a == b).all() for a, b in zip(before, vgg.parameters()))


def test_a_list_of_weights_is_refused(vgg, tmp_path):
    torch.save([torch.zeros(3)], tmp_path / 'list.pth')
    with pytest.raises(SerError, match=r'list\.pth: not a dictionary'):
        load_published(vgg, tmp_path / 'list.pth')


def test_half_a_download_is_refused(vgg, vgg_weights, tmp_path):
    path = tmp_path / 'half.pth'
    torch.save(vgg_weights, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SerError, match=r'^\S+half\.pth: damaged'):
        load_published(vgg, path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol:UserWarning')
@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_bytes_of_anything_are_refused(vgg, tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'bytes.pth'
    path.write_bytes(content)
    with pytest.raises(SerError, match=r'bytes\.pth'):
        load_published(vgg, path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol:UserWarning')
def test_a_pickle_runs_no_code(vgg, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'done'),)

    (tmp_path / 'payload.pth').write_bytes(pickle.dumps(Payload()))
    with pytest.raises(SerError, match=r'payload\.pth: damaged'):
        load_published(vgg, tmp_path / 'payload.pth')
    assert not (tmp_path / 'done').exists()


def test_a_model_from_scratch_has_none():
    model = build_model('cnn_lstm', 64, 4)
    assert published_parameters(model) == 0
    with pytest.raises(SerError, match=r'CnnLstm has no .* and mine\.pth is not a bundle'):
        load_published(model, 'mine.pth')


def trained(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ('name', 'of_head', 'of_stages'),
    [
        ('vgg', 4_328_200, [38_720, 221_440, 1_475_328, 5_899_776, 7_079_424]),
        ('vggish', 8_776, [640, 73_856, 885_248, 3_539_968, 67_641_472]),
    ],
)
def test_stages_are_frozen_and_thawed(name, of_head, of_stages):
    with torch.device('meta'):
        model = build_model(name, 64, 8)
    assert published_parameters(model) == sum(of_stages)
    for n_stages in (5, 0, 3):
        freeze(model, n_stages)
        assert trained(model) == of_head + sum(of_stages[n_stages:])


def test_frozen_stages_do_not_change(vgg, features):
    freeze(vgg, 4)
    optimizer = torch.optim.SGD((p for p in vgg.parameters() if p.requires_grad), 0.1)
    before = {name: parameter.clone() for name, parameter in vgg.named_parameters()}
    vgg.train()(features(2, 32, 32)).logsumexp(dim=0).sum().backward()
    optimizer.step()
    changed = {name for name, p in vgg.named_parameters() if (p != before[name]).any()}
    assert changed == {
        name for name in before if name.startswith(('features.24', 'features.26', 'features.28'))
    } | {name for name in before if name.startswith('head.')}
    freeze(vgg, 0)


@pytest.mark.parametrize('n_stages', [-1, 6])
def test_missing_stages(vgg, n_stages):
    with pytest.raises(SerError, match=rf'^{n_stages} stages .* Vgg has 5$'):
        freeze(vgg, n_stages)


OF_ALL_ELSE = {
    'cnn_lstm': [160 + 32, 4_640 + 64, 18_496 + 128, 36_928 + 128, 33_280],
    'stacked_cnn_lstm': [160 + 32, 4_640 + 64, 18_496 + 128, 73_856 + 256, 49_664],
}
"""Architecture → parameters of its conv blocks, then of all else but the classifier."""


@pytest.mark.parametrize('name', OF_ALL_ELSE)
def test_stages_are_the_conv_blocks_and_all_else_but_the_classifier(name):
    with torch.device('meta'):
        model = build_model(name, 64, 8)
    for n_stages in (5, 0, 2):
        freeze(model, n_stages)
        kept = sum(OF_ALL_ELSE[name][n_stages:])
        assert trained(model) == kept + sum(p.numel() for p in model.classifier.parameters())
    with pytest.raises(SerError, match=r'6 stages cannot be frozen: \w+ has 5$'):
        freeze(model, 6)


def test_blocks_of_the_same_depth_are_one_stage():
    with torch.device('meta'):
        model = build_model('parallel_fusion', 64, 8)
    freeze(model, 1)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.rpartition('.')[0] for name in frozen} == {
        f'branches.{branch}.blocks.0.{layer}' for branch in (0, 1) for layer in ('conv', 'norm')
    }


@pytest.mark.parametrize('name', MODELS)
def test_every_parameter_but_the_classifiers_is_in_a_stage(name):
    with torch.device('meta'):
        model = build_model(name, 64, 8)
    layers = [layer for stage in stages(model) for layer in stage]
    parameters = [p for layer in layers for p in layer.parameters(recurse=False)]
    assert len(set(parameters)) == len(parameters)
    freeze(model, len(stages(model)))
    left = {n for n, p in model.named_parameters() if p.requires_grad}
    own = 'head' if name.startswith('vgg') else 'classifier'
    assert left == {n for n, _ in model.named_parameters() if own in n.split('.')}


@pytest.mark.parametrize('name', [name for name in MODELS if not name.startswith('vgg')])
def test_frozen_norms_keep_their_statistics_and_others_do_not(name, features):
    model = build_model(name, 32, 4)
    n_stages = min(2, len(stages(model)))
    freeze(model, n_stages)
    frozen = {layer for stage in stages(model)[:n_stages] for layer in stage}
    norms = [
        m for m in model.modules() if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))
    ]
    before = [norm.running_mean.clone() for norm in norms]
    model(features(4, 32, 160)).sum().backward()
    assert norms
    for norm, mean in zip(norms, before):
        assert torch.equal(norm.running_mean, mean) == (norm in frozen)
    for parameter in model.parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad)
    assert all(layer.training for layer in model.modules() if isinstance(layer, torch.nn.Dropout))

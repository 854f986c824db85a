"""The package for ament_python and for pip."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'ser_ros'


def shared(folder, *patterns):
    """Return a data_files entry for every folder under `folder` with files of these names."""
    files = {}
    for path in sorted(file for pattern in patterns for file in Path(folder).rglob(pattern)):
        files.setdefault(f'share/{NAME}/{path.parent}', []).append(str(path))
    return list(files.items())


setup(
    name=NAME,
    version='0.1.0',
    description='Speech emotion recognition for companion robots, in ROS 2 and without it',
    author='ser_ros maintainers',
    maintainer='ser_ros maintainers',
    maintainer_email='maintainers@ser-ros.example.org',
    license='Apache-2.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={
        f'{NAME}.training.reports': ['templates/*.jinja'],
        f'{NAME}.view': ['page/*'],
    },
    # The ament share folder with colcon, sys.prefix/share with pip.
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared('launch', '*.launch.py'),
        *shared('config', '*.yaml'),
        *shared('config/sros2', '*.xml'),
        *shared('config/foxglove', '*.json'),
        *shared('bundles', '*.safetensors', '*.md', 'LICENSE*'),
        *shared('encoders', '*.safetensors', 'LICENSE*'),
    ],
    zip_safe=False,
    python_requires='>=3.10',
    install_requires=[
        'numpy',
        'onnxruntime',
        'pyyaml',
        'safetensors',
        'silero-vad>=6.2',
        'sounddevice>=0.5',
        'soundfile>=0.12',
        'soxr>=0.5',
        # torchaudio does not declare which torch it was built for, and fails with any other.
        'torch==2.11.*',
        'torchaudio==2.11.*',
    ],
    extras_require={
        'cluster': ['ray>=2'],
        'foxglove': ['foxglove-sdk>=0.30'],
        'test': ['hypothesis', 'pytest', 'pytest-xdist'],
        'train': [
            'filelock',
            'jinja2',
            'librosa>=0.11',
            'lightning>=2.6,<3',
            'matplotlib>=3.9',
            'onnx',
            'onnx-ir',
            'onnxscript',
            'pyroomacoustics>=0.10',
            'scipy',
            'soundfile>=0.13',
            'tensorboard',
            'torchmetrics>=1.5',
            'torchvision==0.26.*',
            'tqdm',
        ],
        'view': ['aiohttp', 'rosbags'],
    },
    entry_points={
        'console_scripts': [
            f'audio_capture_node = {NAME}.nodes.entry:audio_capture_node',
            f'emotion_node = {NAME}.nodes.entry:emotion_node',
            f'view_node = {NAME}.nodes.entry:view_node',
            f'ser = {NAME}.nodes.entry:ser',
            f'ser_ros = {NAME}.__main__:main',
        ],
    },
)

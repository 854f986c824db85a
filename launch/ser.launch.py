"""Launch the nodes: one captures sound, one publishes the emotions in it, and one may show both."""

import difflib
import time
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown, TimerAction
from launch.logging import get_logger
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Launch arguments that set the parameter of the same name; without one, params_file decides.
EMOTION_PARAMETERS = ('bundle', 'device', 'audio_topic', 'ros4hri')
CAPTURE_PARAMETERS = ('source', 'file', 'speed', 'loop', 'microphone', 'publish_audio')
COMMON_PARAMETERS = ('autostart', 'use_sim_time')
VIEW_PARAMETERS = ('audio_topic', 'ros4hri')
BOOLEANS = ('autostart', 'use_sim_time', 'ros4hri', 'publish_audio', 'loop')

# Exit status of a node whose settings are wrong: ser_ros.nodes.CONFIGURATION_ERROR.
CONFIGURATION_ERROR = 78
# Seconds until a node that ended is started again: twice as long each time, and short again after it
# has run for LONG_ENOUGH seconds.
FIRST_DELAY, LONGEST_DELAY, LONG_ENOUGH = 2.0, 60.0, 60.0


def generate_launch_description():
    """Describe the arguments and the nodes."""
    default_params = PathJoinSubstitution([FindPackageShare('ser_ros'), 'config', 'ser.yaml'])
    kept = 'Empty: the value in params_file.'
    description = LaunchDescription(
        [
            DeclareLaunchArgument(
                'namespace', default_value='', description='Namespace of the nodes.'
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value=default_params,
                description='YAML file with the parameters of the nodes; its keys begin with /**/.',
            ),
            DeclareLaunchArgument(
                'bundle',
                default_value='',
                description=f'Model: a path, or the name of a shipped one. {kept}',
            ),
            DeclareLaunchArgument(
                'device',
                default_value='',
                description=f'Where the model runs: auto, cpu, cuda or cuda:N. {kept}',
            ),
            DeclareLaunchArgument(
                'use_capture',
                default_value='true',
                choices=['true', 'false', 'True', 'False'],
                description='Start the capture node; false if another package publishes sound.',
            ),
            DeclareLaunchArgument(
                'source',
                default_value='',
                description=f'Source of the sound: microphone or file. {kept}',
            ),
            DeclareLaunchArgument(
                'file',
                default_value='',
                description=f'Sound file to play with source:=file. {kept}',
            ),
            DeclareLaunchArgument(
                'speed',
                default_value='',
                description=f'Speed of the file, times real time. {kept}',
            ),
            DeclareLaunchArgument(
                'loop',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Play the file again and again. {kept}',
            ),
            DeclareLaunchArgument(
                'microphone',
                default_value='',
                description=f'Index of the microphone, or part of its name. {kept}',
            ),
            DeclareLaunchArgument(
                'audio_topic',
                default_value='',
                description=f'Topic of the sound for the emotion node. {kept}',
            ),
            DeclareLaunchArgument(
                'ros4hri',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Process the voices that ROS4HRI tracks. {kept}',
            ),
            DeclareLaunchArgument(
                'publish_audio',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description='false: do not publish the sound; both nodes run in one process. '
                + kept,
            ),
            DeclareLaunchArgument(
                'view',
                default_value='false',
                choices=['true', 'false', 'True', 'False'],
                description='Serve a page that shows what the nodes do; its address is printed.',
            ),
            DeclareLaunchArgument(
                'view_host',
                default_value='',
                description='Address of the page: 127.0.0.1, or 0.0.0.0 for other machines, which '
                f'need the token. {kept}',
            ),
            DeclareLaunchArgument(
                'view_port', default_value='', description=f'Port of the page. {kept}'
            ),
            DeclareLaunchArgument(
                'foxglove_port',
                default_value='',
                description='Port on which the view node offers the sound to Foxglove; 0: none. '
                + kept,
            ),
            DeclareLaunchArgument(
                'enclave',
                default_value='',
                description='With SROS 2: prefix of the enclaves of the nodes, such as /ser_ros.',
            ),
            DeclareLaunchArgument(
                'autostart',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Configure and activate the nodes without being asked to. {kept}',
            ),
            DeclareLaunchArgument(
                'use_sim_time',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Use the time of /clock. {kept}',
            ),
            DeclareLaunchArgument(
                'log_level',
                default_value='info',
                choices=['debug', 'info', 'warn', 'error', 'fatal'],
                description='Lowest level of the messages that the nodes log.',
            ),
            OpaqueFunction(function=_nodes),
        ]
    )
    known = [e.name for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    description.add_action(OpaqueFunction(function=_doubt, args=[known]))
    return description


def _doubt(context, known):
    """Warn of an argument that this file does not have, if it resembles one: launch ignores it."""
    for name in context.launch_configurations.keys() - set(known):
        if near := difflib.get_close_matches(name, known, 1, cutoff=0.7):
            get_logger('ser.launch.py').warning(
                f'argument {name!r} is unknown and ignored; did you mean {near[0]!r}?'
            )


def _nodes(context):
    arguments = context.launch_configurations
    given = {name: value for name, value in arguments.items() if value}

    def enclave(executable):
        return ['--enclave', f'{given["enclave"]}/{executable}'] if 'enclave' in given else []

    def node(executable, names, more=None, **kwargs):
        overrides = {
            name: _value(name, given[name])
            for name in (*names, *COMMON_PARAMETERS)
            if name in given
        }
        overrides.update(more or {})
        return _supervised(
            lambda on_exit: Node(
                package='ser_ros',
                executable=executable,
                namespace=arguments['namespace'],
                parameters=[Path(arguments['params_file']).expanduser(), overrides],
                ros_arguments=['--log-level', arguments['log_level'], *enclave(executable)],
                output='screen',
                on_exit=on_exit,
                **kwargs,
            ),
            executable,
        )

    is_captured = arguments['use_capture'].lower() == 'true'
    if given.get('publish_audio', '').lower() == 'false':
        if not is_captured:
            raise RuntimeError(
                'publish_audio:=false needs use_capture:=true: without it nothing is captured'
            )
        # No name: it would rename both nodes in the process.
        nodes = [node('ser', EMOTION_PARAMETERS + CAPTURE_PARAMETERS)]
        return nodes + _view(node, given, is_captured)
    nodes = [node('emotion_node', EMOTION_PARAMETERS, name='emotion_node')]
    nodes += _view(node, given, is_captured)
    if is_captured:
        capture = 'audio_capture_node'
        nodes.append(node(capture, CAPTURE_PARAMETERS, name=capture))
    return nodes


def _view(node, given, is_captured):
    """The node that serves the page, if it is wanted."""
    if given['view'].lower() != 'true':
        return []
    more = {} if is_captured else {'capture_node': ''}
    if 'view_host' in given:
        more['host'] = ParameterValue(given['view_host'], value_type=str)
    for argument, name in (('view_port', 'port'), ('foxglove_port', 'foxglove_port')):
        if argument in given:
            try:
                more[name] = int(given[argument])
            except ValueError:
                raise RuntimeError(f'{argument}:={given[argument]} is not a port') from None
    return [node('view_node', VIEW_PARAMETERS, more, name='view_node')]


def _value(name, text):
    """A parameter's value from a launch argument."""
    if name in BOOLEANS:
        return text.lower() == 'true'
    if name == 'speed':
        try:
            return float(text)
        except ValueError:
            raise RuntimeError(f'speed:={text} is not a number') from None
    # Declared as text: a microphone "2" would become a number otherwise.
    return ParameterValue(text, value_type=str)


def _supervised(make, name):
    """A node that is started again when it ends, such as after a crash or while a microphone is away.

    With wrong settings no start succeeds: then the launch ends.
    """
    delay, started = FIRST_DELAY, time.monotonic()

    def on_exit(event, context):
        nonlocal delay, started
        if context.is_shutdown:
            return None
        if event.returncode == CONFIGURATION_ERROR:
            return [Shutdown(reason=f'{name} cannot start with these settings: see its error')]
        if time.monotonic() - started > LONG_ENOUGH:
            delay = FIRST_DELAY
        # Otherwise launch_ros warns that there are two nodes of that name.
        names = getattr(context.locals, 'unique_ros_node_names', {})
        names.pop(event.action.node_name, None)
        again, delay = delay, min(2 * delay, LONGEST_DELAY)
        started = time.monotonic() + again
        message = LogInfo(msg=f'{name} is started again in {again:g} s')
        return [message, TimerAction(period=again, actions=[make(on_exit)])]

    return make(on_exit)

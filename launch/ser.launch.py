"""Hear how people feel: sound captured, emotions published."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Launch argument → the parameters it sets where it is given; else params_file decides.
EMOTION_PARAMETERS = {'bundle': 'bundle', 'device': 'device', 'audio_topic': 'audio_topic'}
CAPTURE_PARAMETERS = {'source': 'source', 'file': 'file', 'microphone': 'microphone'}
BOTH_PARAMETERS = {'autostart': 'autostart', 'use_sim_time': 'use_sim_time'}
BOOLEANS = ('autostart', 'use_sim_time')


def generate_launch_description():
    """Describe the arguments and the two nodes."""
    default_params = PathJoinSubstitution([FindPackageShare('ser_ros'), 'config', 'ser.yaml'])
    kept = 'Empty: as params_file says.'
    return LaunchDescription(
        [
            DeclareLaunchArgument('namespace', default_value='', description='Of both nodes.'),
            DeclareLaunchArgument(
                'params_file',
                default_value=default_params,
                description='Parameters of both nodes, keyed /**/emotion_node: and so on.',
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
                description='Capture sound; false where another package publishes it.',
            ),
            DeclareLaunchArgument(
                'source', default_value='', description=f'microphone or file. {kept}'
            ),
            DeclareLaunchArgument(
                'file', default_value='', description=f'Sound file, for source:=file. {kept}'
            ),
            DeclareLaunchArgument(
                'microphone',
                default_value='',
                description=f'Index or part of the name. {kept}',
            ),
            DeclareLaunchArgument(
                'audio_topic',
                default_value='',
                description=f'Topic that the emotion node hears. {kept}',
            ),
            DeclareLaunchArgument(
                'autostart',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Go to active unasked. {kept}',
            ),
            DeclareLaunchArgument(
                'use_sim_time',
                default_value='',
                choices=['', 'true', 'false', 'True', 'False'],
                description=f'Take the time from /clock. {kept}',
            ),
            DeclareLaunchArgument(
                'log_level',
                default_value='info',
                choices=['debug', 'info', 'warn', 'error', 'fatal'],
                description='What both nodes log.',
            ),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context):
    arguments = context.launch_configurations
    given = {name: value for name, value in arguments.items() if value}

    def node(executable, parameters):
        overrides = {
            # Said to be text, or a microphone "2" would arrive as a number.
            parameter: ParameterValue(given[argument], value_type=str)
            if argument not in BOOLEANS
            else given[argument].lower() == 'true'
            for argument, parameter in {**parameters, **BOTH_PARAMETERS}.items()
            if argument in given
        }
        return Node(
            package='ser_ros',
            executable=executable,
            name=executable,
            namespace=arguments['namespace'],
            parameters=[arguments['params_file'], overrides],
            ros_arguments=['--log-level', arguments['log_level']],
            output='screen',
            # A sticky CUDA error or a microphone that is gone: only a new process helps.
            respawn=True,
            respawn_delay=2.0,
        )

    nodes = [node('emotion_node', EMOTION_PARAMETERS)]
    if arguments['use_capture'].lower() == 'true':
        nodes.append(node('audio_capture_node', CAPTURE_PARAMETERS))
    return nodes

"""The ROS 2 nodes: messages ↔ arrays, parameters, life cycle, diagnostics. No logic of sound."""

NAMESAKE = (
    "the audio_common_msgs found here is not ros-drivers' (AudioData with uint8[] data); "
    'remove it and install ros-$ROS_DISTRO-audio-common-msgs'
)
"""What to say where another package of that name is in the way."""

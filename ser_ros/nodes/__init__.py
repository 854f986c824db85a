"""The ROS 2 nodes: messages ↔ arrays, parameters, life cycle, diagnostics. No audio logic."""

NAMESAKE = (
    "the audio_common_msgs found here is not ros-drivers' (AudioData with uint8[] data), and not "
    "mgonzs13's (AudioStamped); "
    'remove it and install ros-$ROS_DISTRO-audio-common-msgs'
)
"""The error where a third package of that name is installed."""

CONFIGURATION_ERROR = 78
"""Exit status for settings with which no start can succeed (EX_CONFIG of sysexits.h). The launch file
ends then; after any other end of a node it starts it again."""

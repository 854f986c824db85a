"""Sound without ROS: formats, resampling, sources, voice activity."""

SAMPLE_RATE = 16_000
"""Hz; the rate of everything behind the decoder."""

SECOND = 1_000_000_000
"""Nanoseconds in one, the unit of every stamp."""

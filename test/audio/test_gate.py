"""When sound is ignored because the robot itself speaks."""

from ser_ros.audio import SECOND
from ser_ros.audio.gate import Gate

START = 1_700_000_000 * SECOND


def test_it_is_closed_while_the_robot_speaks_and_for_a_tail():
    gate = Gate()
    assert not gate.is_muted(START, 0.5)
    gate.robot_speaks(True, START)
    assert gate.is_muted(START + 60 * SECOND, 0.5)
    gate.robot_speaks(True, START + 60 * SECOND)  # published again
    gate.robot_speaks(False, START + 61 * SECOND)
    assert gate.is_muted(START + 61 * SECOND + SECOND // 2 - 1, 0.5)
    assert not gate.is_muted(START + 61 * SECOND + SECOND // 2, 0.5)


def test_without_speech_of_the_robot_there_is_no_tail():
    gate = Gate()
    gate.robot_speaks(False, START)
    assert not gate.is_muted(START, 0.5)


def test_what_the_robot_said_can_be_forgotten():
    gate = Gate()
    gate.robot_speaks(True, START)
    gate.forget_robot()
    assert not gate.is_muted(START, 0.5)
    assert gate.robot_has_spoken(START) is None

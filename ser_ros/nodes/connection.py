"""One voice of the emotion node: its stream, with the topics at both ends."""

from dataclasses import dataclass

from ser_ros.nodes.diagnostics import counter_values
from ser_ros.nodes.emotion_diagnostics import VoiceStatus
from ser_ros.nodes.namespaces import Namespace
from ser_ros.nodes.publishers import EmotionPublishers
from ser_ros.nodes.subscriptions import AudioSubscription
from ser_ros.stream.listener import VoiceStream


def known_as(voice_id: str, is_plain: bool) -> str:
    """By which name a voice is known; the one on the plain topics is the same under any id."""
    return '' if is_plain else voice_id


@dataclass(kw_only=True)
class Connection:
    """A voice, from its sound to what is published of it."""

    voice_id: str
    """Empty without ROS4HRI."""
    namespace: Namespace
    stream: VoiceStream
    subscription: AudioSubscription
    publishers: EmotionPublishers
    is_plain: bool
    """Whether it is the one voice on the plain audio topics of its namespace."""

    @property
    def counters(self) -> dict[str, float]:
        """What happened to its sound."""
        return {
            **counter_values(self.stream.queue.counters),
            **counter_values(self.stream.voice.counters),
            **counter_values(self.subscription.counters),
        }

    @property
    def is_own(self) -> bool:
        """Whether its sound is that of the node's own namespace."""
        return self.is_plain and self.namespace.is_own

    @property
    def is_enrolled(self) -> bool:
        """Whether its adaptation starts from an enrolment."""
        voice = self.stream.voice
        return voice.adapts and voice.adaptation.has_baseline

    @property
    def known_as(self) -> str:
        """See the function."""
        return known_as(self.voice_id, self.is_plain)

    def status(self, may_come_unpublished: bool) -> VoiceStatus:
        """Its state; `may_come_unpublished`: whether sound may also come from this process."""
        subscription, queue, voice = self.subscription, self.stream.queue, self.stream.voice
        return VoiceStatus(
            voice_id=self.voice_id,
            topic=subscription.topic,
            format='refused' if queue.refusal else str(queue.format or 'unknown'),
            decibels=self.stream.meter.decibels,
            backlog_bytes=queue.backlog_bytes,
            seconds_without_block=queue.seconds_without_block,
            counters=self.counters,
            n_utterances=voice.adaptation.n_utterances if voice.adapts else 0,
            refusal=queue.refusal,
            waits_for_format_on=subscription.info_topic if queue.waits_for_format else None,
            level_problem=self.stream.meter.problem,
            channel_problem=queue.channel_problem,
            has_incompatible_publishers=subscription.counters.incompatible_publishers > 0,
            lost_since_block=subscription.lost_since_block,
            is_reliable=subscription.is_reliable,
            publishers=subscription.publishers(),
            may_come_unpublished=may_come_unpublished,
            has_ended=queue.has_ended,
        )

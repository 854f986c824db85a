"""Whether the publishers and the subscriptions of a test have found each other."""

from itertools import product

from rclpy.exceptions import InvalidHandle
from rclpy.qos import QoSCompatibility, qos_check_compatible


def have_matched(nodes):
    """Whether every publisher and every subscription of these nodes know each other, where they fit.

    One side knows before the other, on a busy machine by tenths of a second. What is published in
    between is lost: of a short sound all.
    """
    receivers = [getattr(node, '_receiver', None) for node in nodes]
    nodes = [*nodes, *(receiver.node for receiver in receivers if receiver is not None)]
    publishers = [publisher for node in nodes for publisher in node.publishers]
    subscriptions = [subscription for node in nodes for subscription in node.subscriptions]
    pairs = [pair for pair in product(publishers, subscriptions) if _fit(*pair)]
    try:
        return all(
            publisher.get_subscription_count() >= sum(p is publisher for p, _ in pairs)
            and subscription.get_publisher_count() >= sum(s is subscription for _, s in pairs)
            for publisher, subscription in pairs
        )
    except InvalidHandle:  # destroyed by another thread just now
        return False


def _fit(publisher, subscription):
    if publisher.topic_name != subscription.topic_name:
        return False
    compatibility, _ = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
    return publisher.msg_type is subscription.msg_type and compatibility != QoSCompatibility.ERROR

"""The ROS 2 nodes: messages ↔ arrays, parameters, life cycle, diagnostics. No logic of sound."""

"""Sound and what is recognised in it, on a page: its state, its sound, its server. No ROS, no training.

`lane.Lane` collects what is known of one voice, `model.Model` all voices and the nodes behind them,
`server.Server` shows a model to browsers, and `page/` is what they load.
"""

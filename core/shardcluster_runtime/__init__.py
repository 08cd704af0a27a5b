"""The hands of ShardCluster: connections to nodes, observing, moving slots, the control loop.

Law: nothing here decides what should happen; `shardcluster.decide` does, from plain data.
"""

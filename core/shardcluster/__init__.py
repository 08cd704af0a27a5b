"""What a ShardCluster *is* and what should happen to it next.

Law: this package imports the standard library only, and of it nothing that reaches a
socket, a clock, a file or a random number.  Every input is plain frozen data, every output
is a value; `shardcluster_runtime` does the reading and the doing.
"""

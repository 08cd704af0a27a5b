"""ShardCluster on Kubernetes: an operator that carries the store as Kubernetes objects."""

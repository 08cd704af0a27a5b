"""Where nodes come from: local processes, fixed or looked-up addresses, later Kubernetes."""

"""EtcdCluster: etcd with mutual TLS on the hosts that are members."""

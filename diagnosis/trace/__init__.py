"""`lab trace`: the real way of a packet from a container of the lab, with the facts at each hop.

A packet is sent, and the kernels of the hosts at both ends say what became of it; Docker, Calico, BIRD and
the routing tables say why. `ends` finds who is meant, and `walk` sends and listens. `side` reads what a host
says: `packets` and `felix` of packets that rules meet, `taps` and `programs` of those that programs in the
kernel hand on. `hops` tells the way, `loss` judges it, and `told` prints it.
"""

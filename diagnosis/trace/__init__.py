"""Traces a packet from a container of the lab along its path, hop by hop, for `lab trace`.

`location` finds source and target, `observation` sends the packet while the hosts at both ends watch it, and
`path_facts` parses what they print: `packet_trace` and `felix` about packets that meet iptables rules,
`capture` and `bpf` about packets that BPF programs forward past them. `hops` lists the hops, and `loss` finds
where and why a packet was lost.
"""

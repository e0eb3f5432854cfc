"""What explains a running lab, for readiness gates and for `lab`: facts, findings, traces of packets."""

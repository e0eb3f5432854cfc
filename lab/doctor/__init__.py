"""`lab doctor`: checks before an `up` whether the hosts in the config can carry the lab."""

"""The policy language and what follows from it: addresses, documents, verdicts, guard. Pure."""

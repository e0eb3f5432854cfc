"""The operator's command: looks at a running lab and says what it sees. It never changes a machine."""

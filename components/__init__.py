"""The lab's components: one package each, with its config section, its pure renderers and its resources."""

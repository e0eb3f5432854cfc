"""What several components are made of: value types of the config, dynamic providers, secrets."""

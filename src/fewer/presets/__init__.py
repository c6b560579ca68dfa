"""One TOML file per paper or use: settings with a name. The first comment line says what it is."""

"""Tasks: what a model is for. Each brings its data reader, its metrics and its training; methods never import one."""

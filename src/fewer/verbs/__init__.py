"""The verbs: match, sense, plan, apply, report, and compress, which does them in turn. They join the rooms together."""

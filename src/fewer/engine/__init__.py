"""Compression: samples, prepare, sense, plan, apply, judge, report. Verbs call it; it calls no verb."""

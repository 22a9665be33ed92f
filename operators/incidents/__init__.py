"""From verdicts to alerts: episodes, groups, their causes and their words."""

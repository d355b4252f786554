"""`tipsseg fit`: fit class vectors to the edited masks of a run, or to truth masks."""

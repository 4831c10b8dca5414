"""Stand-ins that SIE is tested with: a hub, a registry, real stores, tiny models. Never published."""

__version__ = "0.3.1"

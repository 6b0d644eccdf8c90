"""Meters and the event log in the admin."""

from meters.admin import events as events
from meters.admin import imports as imports
from meters.admin import meters as meters
from meters.admin import reconciliations as reconciliations

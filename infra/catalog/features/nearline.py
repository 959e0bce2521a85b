"""nearline: the declared features of each application, ready to be counted and read."""

from __future__ import annotations

import functools

from infra.catalog.events import schema_of
from infra.catalog.features.card import CARD_FEATURES
from infra.catalog.features.cell import CELL_FEATURES
from infra.catalog.features.device import DEVICE_FEATURES
from infra.catalog.features.driver import DRIVER_FEATURES
from infra.catalog.features.item import ITEM_FEATURES
from infra.catalog.features.merchant import MERCHANT_FEATURES
from infra.catalog.features.rider import RIDER_FEATURES
from infra.catalog.features.user import USER_FEATURES
from infra.contracts.features import FeaturePlan

_ALL = (
    *USER_FEATURES,
    *ITEM_FEATURES,
    *CARD_FEATURES,
    *MERCHANT_FEATURES,
    *DEVICE_FEATURES,
    *DRIVER_FEATURES,
    *RIDER_FEATURES,
    *CELL_FEATURES,
)


@functools.cache
def plan_of(application: str) -> FeaturePlan:
    """The features of all entities that the application's events concern. Raises UnknownApplication."""
    types = schema_of(application).types.values()
    kinds = {kind for event_type in types for kind in (*event_type.entities, *event_type.optional)}
    return FeaturePlan(spec for spec in _ALL if spec.entity in kinds)

"""access: what a logged-in user may see and do here, by Airflow's own permission check on the DAGs."""

from __future__ import annotations

from typing import Annotated, Protocol

from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, HTTPException, Request, status

from infra.catalog.applications import APPLICATIONS
from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.ids import ApplicationName

PROMOTE, ROLLBACK = "snapshot_promote", "snapshot_rollback"
CANARY, CANARY_END = "snapshot_canary", "snapshot_canary_end"


class Access(Protocol):
    """One user's permissions."""

    def may_read(self, dag_id: str) -> bool:
        """Whether the user may read that DAG."""
        ...

    def may_trigger(self, dag_id: str) -> bool:
        """Whether the user may start a run of it."""
        ...


class AirflowAccess:
    """The permissions that Airflow's auth manager gives the user of a request."""

    def __init__(self, request: Request, user: GetUserDep) -> None:
        """Raises HTTPException 401 where nobody is logged in: that is what resolving `user` does."""
        self._request = request
        self._user = user

    def may_read(self, dag_id: str) -> bool:
        """Whether the user may read that DAG."""
        return self._allowed("GET", None, dag_id)

    def may_trigger(self, dag_id: str) -> bool:
        """Whether the user may start a run of it."""
        return self._allowed("POST", DagAccessEntity.RUN, dag_id)

    def _allowed(self, method: ResourceMethod, entity: DagAccessEntity | None, dag_id: str) -> bool:
        try:
            requires_access_dag(method, entity, param_dag_id=dag_id)(self._request, self._user)
        except HTTPException as refused:
            if refused.status_code != status.HTTP_403_FORBIDDEN:
                raise
            return False
        return True


AccessDep = Annotated[Access, Depends(AirflowAccess)]


def refresh_dag_id(application: ApplicationName) -> str:
    """The DAG whose readers may see an application's snapshots."""
    return f"snapshot_refresh_{application}"


def readable(access: AccessDep) -> list[ApplicationSpec]:
    """The applications whose snapshots the user may see. Raises HTTPException: 401 without a login, 403 where there is none."""
    found = [spec for name, spec in APPLICATIONS.items() if access.may_read(refresh_dag_id(name))]
    if not found:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You may read the snapshots of no application.")
    return found


ReadableDep = Annotated[list[ApplicationSpec], Depends(readable)]


def one_readable(application: str, found: ReadableDep) -> ApplicationSpec:
    """The application of the path. Raises HTTPException: 401 without a login, 403 where the user may not read it."""
    for spec in found:
        if spec.name == application:
            return spec
    raise HTTPException(status.HTTP_403_FORBIDDEN, f"You may not read the snapshots of {application!r}.")


ApplicationDep = Annotated[ApplicationSpec, Depends(one_readable)]

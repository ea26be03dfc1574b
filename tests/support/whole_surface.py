"""Every route that a node may have, with nothing behind it: for what is said of routes, and decided at their door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invocation.frontend import Room
from node.admission import BODY_LIMIT_S
from node.console_api import ConsoleApi
from node.environments_api import EnvironmentsApi
from node.http_side import Apis, routes
from node.invoke_api import InvokeApi
from node.invoke_metrics import InvokeMeters
from node.lambda_api import LambdaApi
from node.lambda_definitions_api import LambdaDefinitionsApi
from node.lambda_functions_api import LambdaFunctionsApi
from node.mapping_api import MappingApi
from node.openapi_api import OpenApi
from node.plan_api import PlanApi
from node.serve import application
from node.url_api import FunctionUrls
from tests.support.bare_surface import bare_surface

if TYPE_CHECKING:
    from aiohttp import web

_NOTHING: Any = None


class AnyFunction:
    """A front end that finds every function. `invocation.frontend.FrontEnd`, as far as it is asked here."""

    name = "any"
    http = True

    def find(self, _head: object) -> AnyFunction:
        """Return itself for a function."""
        return self


def whole_surface(*, body_limit_s: float = BODY_LIMIT_S, **more: Any) -> web.Application:
    """Make the application. Whatever works on a request finds nothing to work with, and fails."""
    functions: Any = AnyFunction()
    called = (functions, Room(), InvokeMeters())
    apis = Apis(
        mapping=MappingApi(explain=_NOTHING, redrives=_NOTHING, replays=_NOTHING, seeks=_NOTHING),
        console=ConsoleApi(_NOTHING),
        openapi=OpenApi(guarded=True),
        environments=EnvironmentsApi(_NOTHING, _NOTHING, Room()),
        invoke=InvokeApi(*called, body_limit_s=body_limit_s),
        urls=FunctionUrls(*called, guarded=True, body_limit_s=body_limit_s),
        definitions=LambdaDefinitionsApi(_NOTHING),
        functions=LambdaFunctionsApi(_NOTHING),
        mappings=LambdaApi(_NOTHING),
        plan=PlanApi(_NOTHING, _NOTHING),
    )
    return application(bare_surface(routes(apis), **more))

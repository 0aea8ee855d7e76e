"""What can be asked to speak: the frozen backbone, the person's plugin, and each of its versions."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.errors import NoSuchModel
from device_agent.errors import DeviceError
from device_agent.plugins import NoSuchVersion, PluginStore, PluginVersion

BASE, ME = "base", "me"


@dataclass(frozen=True, slots=True)
class Model:
    """Who was asked for."""

    name: str
    """As the request has it: ``base``, ``me`` or ``me:VERSION``."""

    version: PluginVersion | None
    """None when the frozen backbone speaks."""


def find_model(plugins: PluginStore, name: str) -> Model:
    """The model of that name; ``me`` is the frozen backbone as long as no plugin speaks.

    Raises:
        NoSuchModel: There is none.
    """
    if name == BASE:
        return Model(name, None)
    if name == ME:
        return Model(name, plugins.current())
    who, _, version = name.partition(":")
    try:
        if who == ME:
            return Model(name, plugins.get(version))
    except NoSuchVersion:
        pass
    raise NoSuchModel(name)


async def models(request: Request) -> Response:
    """``GET /v1/models``."""
    plugins = PluginStore(agent_of(request).settings.home)
    rows = await run_in_threadpool(_rows, plugins)
    return JSONResponse({"object": "list", "data": rows})


async def model(request: Request) -> Response:
    """``GET /v1/models/{name}``."""
    plugins, name = PluginStore(agent_of(request).settings.home), request.path_params["name"]
    found = await run_in_threadpool(find_model, plugins, name)
    return JSONResponse(_row(found.name, found.version))


def _rows(plugins: PluginStore) -> list[dict[str, object]]:
    versions = plugins.versions()
    rows = [_row(BASE, None), _row(ME, _current(plugins))]
    return rows + [_row(f"{ME}:{one.version}", one) for one in versions]


def _current(plugins: PluginStore) -> PluginVersion | None:
    try:
        return plugins.current()
    except DeviceError:
        # A plugin that cannot be read must not hide the others.
        return None


def _row(name: str, version: PluginVersion | None) -> dict[str, object]:
    created = 0 if version is None else int((version.folder).stat().st_mtime)
    plugin = None if version is None else version.version
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sideplug",
        "plugin": plugin,
    }

"""``/v1/plugins``: the versions with their evaluation, and which one speaks."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.body import Body
from device_agent.api.models import BASE
from device_agent.plugins import PluginStore, PluginVersion


async def list_plugins(request: Request) -> Response:
    """``GET /v1/plugins``: the newest first; ``reason`` when ratings have turned back to what spoke before."""
    return JSONResponse(
        await run_in_threadpool(_list, PluginStore(agent_of(request).settings.home))
    )


async def use_plugin(request: Request) -> Response:
    """``POST /v1/plugins/use``: ``{"version": "2"}``, or ``"base"`` for the frozen backbone."""
    version = (await Body.of(request)).text("version")
    plugins = PluginStore(agent_of(request).settings.home)
    await run_in_threadpool(plugins.use, None if version == BASE else version)
    return JSONResponse({"current": await run_in_threadpool(_current, plugins)})


async def roll_back(request: Request) -> Response:
    """``POST /v1/plugins/rollback``: the one that spoke before speaks again."""
    plugins = PluginStore(agent_of(request).settings.home)
    return JSONResponse({"current": await run_in_threadpool(plugins.rollback)})


def _list(plugins: PluginStore) -> dict[str, object]:
    current = _current(plugins)
    rows = [_row(version) for version in reversed(plugins.versions())]
    return {"object": "list", "current": current, "reason": plugins.reason, "data": rows}


def _current(plugins: PluginStore) -> str | None:
    current = plugins.current()
    return None if current is None else current.version


def _row(version: PluginVersion) -> dict[str, object]:
    about = version.config.get("sideplug")
    return {
        "object": "plugin",
        "version": version.version,
        "recipe": about.get("recipe") if isinstance(about, dict) else None,
        "backbone": version.config.get("base_model_name_or_path"),
        "fingerprint": version.fingerprint,
        "bytes": version.size,
        "created": version.folder.stat().st_mtime,
        "card": version.card,
    }

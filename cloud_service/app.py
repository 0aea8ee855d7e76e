"""Wires a service to HTTP. Decides nothing itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from cloud_service.admission import Gate
from cloud_service.border import guard
from cloud_service.routes import ROUTERS
from cloud_service.routes.status import package_version
from cloud_service.service import Service

SWEEP_SECONDS = 5.0
"""How often idle sessions and prefixes are looked for, besides whenever a session is used."""


def create_app(service: Service) -> FastAPI:
    """Return the application; its model loads and its kits are compiled while it answers."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.runner.start()
        tasks = [
            asyncio.create_task(_sweep(service)),
            asyncio.create_task(service.kits.compile_missing()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(service.runner.stop)

    # No docs_url: its pages would load scripts from elsewhere.
    app = FastAPI(
        title="Sideplug",
        version=package_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, admission=service.admission)
    guard(app, service.metrics)
    return app


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        service.sessions.expire()
        service.prefixes.expire()

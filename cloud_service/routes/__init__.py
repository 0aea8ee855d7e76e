"""What the service answers to over HTTP. To add a group: a module with a router, a row."""

from fastapi import APIRouter

from cloud_service.routes import backbone, features, kits, prefixes, sessions, status

ROUTERS: tuple[APIRouter, ...] = (
    status.router,
    backbone.router,
    kits.router,
    prefixes.router,
    sessions.router,
    features.router,
)

"""What the service answers to over HTTP. To add a group: a module with a router, a row."""

from fastapi import APIRouter

from cloud_service.routes import backbone, features, kits, prefixes, sessions, status

ROUTERS: tuple[APIRouter, ...] = (
    sessions.router,  # first: routes are tried in order, and nearly all requests are steps
    status.router,
    backbone.router,
    kits.router,
    prefixes.router,
    features.router,
)

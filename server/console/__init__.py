from __future__ import annotations

from fastapi import APIRouter

from server.config import Settings
from server.database import Database


def console_routes(database: Database, settings: Settings) -> APIRouter:
    return APIRouter()

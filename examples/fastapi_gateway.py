"""A gateway in FastAPI that answers when an event is on stable storage.

    WALSVC_TARGET=events/ uvicorn fastapi_gateway:app

Several workers cannot write one directory (the second one gets Locked): give all of them the URL of one `walsvc serve`.

    walsvc serve --data events/ --unix /run/events.sock
    WALSVC_TARGET=unix:///run/events.sock uvicorn fastapi_gateway:app --workers 4
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import walsvc


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    """The log is open while the application runs: in each worker, after its fork."""
    async with walsvc.open(os.environ["WALSVC_TARGET"]) as app.state.log:
        yield


app = FastAPI(lifespan=opened)


@app.post("/events", status_code=201)
async def take(request: Request) -> dict[str, int]:
    """Store the body; a client that repeats a request with its Idempotency-Key stores it once."""
    log: walsvc.Log = request.app.state.log
    stored = await log.append(await request.body(), dedupe=request.headers.get("Idempotency-Key"))
    return {"lsn": stored.lsn}


@app.exception_handler(walsvc.WalError)
async def not_stored(_request: Request, error: walsvc.WalError) -> JSONResponse:
    """Nothing was promised; the client tries again."""
    return JSONResponse({"error": f"not stored: {error}"}, status_code=503)

"""A request's body on its way in: counted, timed, and kept in a file without a name."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request

from hallujax.serve.limits import Limits, Refusal

FIELD = "video"
OVERHEAD = 4096  # bytes of a multipart body that are not the file


@contextlib.asynccontextmanager
async def uploaded(request: Request, limits: Limits) -> AsyncIterator[int]:
    """The descriptor of the file in a request's field `video`, gone after the block; its name is not read.

    Raises:
      Refusal: 400 without such a field, 408 if it does not arrive in time, 413 if it is too large, 415 if
        the request is no form.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal(415, "no_form", f"send the video as the field {FIELD!r} of multipart/form-data")
    body = _Body(request, limits)
    await body.check_declared()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await Request(request.scope, body.receive).form(max_files=1, max_fields=8)
    except TimeoutError as error:
        raise Refusal(408, "upload_timeout", f"the upload took more than {limits.upload_seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise Refusal(400, "disconnected", "the upload broke off") from error
    try:
        video = form.get(FIELD)
        if not isinstance(video, UploadFile):
            raise Refusal(400, "no_video", f"the form has no file in its field {FIELD!r}")
        if not video.size:
            raise Refusal(422, "empty", "this file is empty")
        descriptor = video.file.fileno()  # which moves a small file from memory into an anonymous temporary one
        video.file.flush()
        yield descriptor
    finally:
        await form.close()


class _Body:
    """A body of limited size; one that is too large is read on for a while, so that its sender hears the answer."""

    def __init__(self, request: Request, limits: Limits):
        self._request, self._limits, self._count = request, limits, 0

    async def check_declared(self) -> None:
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limits.upload_bytes + OVERHEAD:
            await self._refuse()

    async def receive(self) -> Any:
        message = await self._request.receive()
        self._count += len(message.get("body", b""))
        if self._count > self._limits.upload_bytes + OVERHEAD:
            await self._refuse()
        return message

    async def _refuse(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.upload_seconds):
                while self._count <= 4 * self._limits.upload_bytes:
                    message = await self._request.receive()
                    self._count += len(message.get("body", b""))
                    if not message.get("more_body"):
                        break
        raise Refusal(413, "too_large", f"this upload is larger than {self._limits.upload_bytes / 2**20:.0f} MiB")

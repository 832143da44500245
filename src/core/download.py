"""Files from the network: gone on with where they were cut off, checked, and never half there."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

from .errors import UserError

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_ATTEMPTS = 4


def download(url: str, path: Path, checksum: str | None = None, hint: str = "") -> None:
    """Bring ``url`` to ``path``; an earlier partial download (``path``.part) is continued.

    checksum: ``md5:...`` or ``sha256:...`` (None: the length that the server tells is all that is
    checked). A file that is there is kept where its checksum is right or none is known. hint: what
    else the user can do. Raises UserError when the address cannot be reached or the checksum stays
    wrong.
    """
    if path.is_file() and (checksum is None or digest(path, checksum) == checksum):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    more = f"; {hint}" if hint else ""
    why = ""
    for _ in range(_ATTEMPTS):
        try:
            _receive(url, partial)
        except urllib.error.HTTPError as error:
            if error.code == 416 and partial.exists():  # nothing is left to send
                pass
            elif error.code < 500:
                raise UserError(f"cannot download {url}: {error}{more}") from None
            else:
                why = str(error)
                continue
        except ValueError as error:  # no address at all
            raise UserError(f"cannot download {url}: {error}{more}") from None
        except OSError as error:  # URLError, timeouts, resets
            why = str(getattr(error, "reason", error))
            continue
        if checksum is None or digest(partial, checksum) == checksum:
            partial.replace(path)
            return
        why = "the checksum is wrong"
        partial.unlink()
    raise UserError(f"cannot download {url}: {why}; run the command again to go on{more}")


def digest(path: Path, like: str) -> str:
    """The checksum of a file, of the kind of ``like`` and written as it is: ``sha256:...``."""
    kind = like.partition(":")[0]
    hashed = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return f"{kind}:{hashed.hexdigest()}"


def _receive(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        goes_on = answer.status == 206
        total = int(answer.headers.get("Content-Length") or 0) + (have if goes_on else 0)
        log.info("%s: %.0f MB%s", url, total / 1e6, f", from {have / 1e6:.0f}" if goes_on else "")
        done, told = (have if goes_on else 0), 0
        with open(partial, "ab" if goes_on else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if total and done * 10 // total > told:
                    told = done * 10 // total
                    log.info("  %d %%", told * 10)
        if total and done < total:
            raise OSError(f"the connection ended at {done} of {total} bytes")

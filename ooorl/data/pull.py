"""Fetches a task's file once, goes on where a transfer broke off, and never calls a broken file a data set.

Read from the environment at each call: `OOORL_DATA` (where files are kept, `~/.cache/ooorl/data`),
`OOORL_MIRROR` (an address to fetch `<mirror>/<file>` from instead), `OOORL_OFFLINE=1` (never touch the
network), `OOORL_PULL_SECONDS` (how long one transfer may take in all, 3600).

The catalogue's addresses are https: the server proves who it is, and a redirect to an address without TLS is not followed.
A mirror is the user's own choice and may be http. Whatever arrives is data and is never executed.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
import zipfile

from ooorl import catalogue
from ooorl.data import entry as find_entry
from ooorl.data import hdf5, minari, read_columns, sha256
from ooorl.errors import UsageError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30  # without a byte
_ALL_SECONDS = 3600.0


def cache_dir():
    """The folder in which files are kept."""
    return os.path.expanduser(os.environ.get("OOORL_DATA") or os.path.join("~", ".cache", "ooorl", "data"))


def pull(task_id, progress=None):
    """The path of a task's file, fetched first where it is not there.

    The file's SHA-256 is written beside it when it is first seen, and compared whenever it is asked for
    again.

    Args:
      task_id: an id of the catalogue, or of Minari, whose own package and cache are used.
      progress: called with (bytes so far, bytes in all or None) while fetching.

    Returns:
      the path.

    Raises:
      UsageError: where the file cannot be had, or is not what it was.
    """
    if minari.is_id(task_id):
        return minari.fetched(task_id)
    task = find_entry(task_id)
    if task.file is None:
        raise UsageError(
            f"A task with data to fetch is needed; {task.id} has none ({' '.join(task.conventions)}); train"
            " online, or load a file by its path."
        )
    path = os.path.join(cache_dir(), task.file)
    if not os.path.exists(path):
        _fetch(task, path, progress)
    _verify(task, path)
    return path


def list_tasks(pattern="*"):
    """One row a task whose id matches, as dicts to print: id, rows, sizes, environment, whether it is at
    hand.

    Raises:
      UsageError: where nothing matches.
    """
    found = catalogue.find(pattern)
    if not found:
        raise UsageError(f"A pattern that matches a task is needed; got {pattern!r}; '*' lists all.")
    return [
        {
            "id": task.id,
            "rows": task.rows,
            "observation_dim": task.observation_dim,
            "action_dim": task.action_dim,
            "horizon": task.horizon,
            "environment": task.environment,
            "file": task.file,
            "at_hand": bool(task.file) and os.path.exists(os.path.join(cache_dir(), task.file)),
        }
        for task in found
    ]


def _address(task):
    mirror = os.environ.get("OOORL_MIRROR")
    return f"{mirror.rstrip('/')}/{task.file}" if mirror else task.address


def verified(target="*"):
    """Whether files are what they were when they were first seen: `[(path, is_sound, told), ...]`.

    Args:
      target: a pattern of task ids, whose files at hand are looked at; or a file, with its record `<file>.json` beside it.

    Raises:
      UsageError: where nothing is at hand.
    """
    if os.path.isfile(target):
        return [_verified(target, None)]
    tasks = {os.path.join(cache_dir(), task.file): task for task in catalogue.find(target) if task.file}
    found = [_verified(path, task) for path, task in sorted(tasks.items()) if os.path.exists(path)]
    if not found:
        raise UsageError(f"Files are needed to look at; none of {target!r} is in {cache_dir()}; pull one, or name a file.")
    return found


def _verified(path, task):
    record, found = _recorded(path).get("sha256"), sha256(path)
    known = [(record, "its record"), (task.checksum if task else None, "the catalogue")]
    others = [(digest, where) for digest, where in known if digest not in (None, found)]
    wrong = [f"{where} has SHA-256 {digest[:12]}, the file {found[:12]}" for digest, where in others]
    told = [where for digest, where in known if digest == found]
    if not told and not _is_whole(path):
        wrong.append("it is no whole HDF5 or npz file")
    said = f"SHA-256 {found[:12]} as in {' and '.join(told)}" if told else f"SHA-256 {found[:12]}, which nobody has recorded yet"
    return path, not wrong, "; ".join(wrong) or said


def _is_whole(path):
    """Whether a file can be opened, and what is in an npz file has the check sums that it names."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        with hdf5.opened(path) as file:
            return bool(hdf5.names(file))
    except (UsageError, OSError, zipfile.BadZipFile):
        return False


def _fetch(task, path, progress):
    by_hand = f"or put {task.file} by hand at {path}"
    if os.environ.get("OOORL_OFFLINE", "") not in ("", "0"):
        raise UsageError(
            f"The file of {task.id} is needed; OOORL_OFFLINE is set and it is not here; unset it, {by_hand}."
        )
    address, seconds = _address(task), _seconds_in_all()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = path + ".part"
    try:
        _download(address, part, progress, seconds)
    except urllib.error.HTTPError as error:
        raise UsageError(
            f"The file of {task.id} is needed; {address} answers {error.code} {_line(error.reason)}; set"
            f" OOORL_MIRROR to another place, {by_hand}."
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UsageError(
            f"The file of {task.id} is needed; {address} cannot be read ({_line(error)}); run again to go on from"
            f" {_size(part)} bytes, set OOORL_MIRROR to another place, {by_hand}."
        ) from None
    _accept(task, part, address, by_hand)
    os.replace(part, path)
    _remove(part + ".json")


class _NeverToPlain(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from an address with TLS to one without."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise OSError(f"it redirects to {newurl}, which has no TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _line(error):
    return " ".join(str(error).split())


def _seconds_in_all():
    text = os.environ.get("OOORL_PULL_SECONDS") or _ALL_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise UsageError(f"OOORL_PULL_SECONDS takes a number of seconds above 0; got {text!r}; mend or unset it.")
    return seconds


def _download(address, part, progress, seconds):
    """Fetches into `part`, from where it ends if the server still has the same file, within so many seconds."""
    end = time.monotonic() + seconds
    start, tag = _size(part), _recorded(part).get("tag")
    request = urllib.request.Request(address)
    # Without a tag there is no telling whether the rest belongs to the same file, so the transfer starts
    # anew.
    if start and tag:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag)
    try:
        response = urllib.request.build_opener(_NeverToPlain).open(request, timeout=min(_TIMEOUT_SECONDS, seconds))
    except urllib.error.HTTPError as error:
        if error.code == 416:
            _remove(part)
            _remove(part + ".json")
            raise OSError("the part on disk does not fit the file; it was removed") from None
        raise
    with response:
        if response.status != 206:
            start = 0
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        _write_json(part, {"tag": tag})
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with open(part, "ab" if start else "wb") as file:
            while chunk := response.read1(_CHUNK):  # what has come so far: a server that drips does not escape the limit
                file.write(chunk)
                if time.monotonic() > end:
                    raise OSError(f"not whole after {seconds:g} s; OOORL_PULL_SECONDS allows more")
                if progress:
                    progress(file.tell(), total)
    if total is not None and _size(part) < total:
        raise OSError(f"broke off at {_size(part)} of {total} bytes")


def _accept(task, part, address, by_hand):
    """Refuses what is no whole HDF5 or npz file, such as a sign-in page, or has another checksum than the catalogue's."""
    try:
        if not _is_whole(part):
            raise UsageError("it is no whole HDF5 or npz file")
        if task.checksum is not None and sha256(part) != task.checksum:
            raise UsageError("its checksum is not the catalogue's")
    except UsageError as error:
        _remove(part)
        _remove(part + ".json")
        raise UsageError(
            f"The file of {task.id} is needed; what {address} gives cannot be used ({error}); it was"
            f" removed: set OOORL_MIRROR to another place, {by_hand}."
        ) from None


def _verify(task, path):
    known, found = _recorded(path).get("sha256") or task.checksum, sha256(path)
    if known is None:
        read_columns(path)
        _write_json(path, {"id": task.id, "sha256": found, "bytes": _size(path), "address": task.address})
    elif known != found:
        why = "it has changed since it was first seen: remove it and pull again"
        if known == task.checksum:
            why = f"it is another file: name it by its path, with --like {task.id}, or remove it and pull again"
        raise UsageError(f"The file with SHA-256 {known[:12]} is needed for {task.id}; {path} has {found[:12]}; {why}.")


def _recorded(path):
    try:
        with open(path + ".json") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_json(path, record):
    draft = path + ".json.draft"
    with open(draft, "w") as file:
        json.dump(record, file, indent=1)
    os.replace(draft, path + ".json")


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _remove(path):
    if os.path.exists(path):
        os.remove(path)

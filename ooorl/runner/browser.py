"""An expert at a page in a browser of this machine: the state in question, drawn, and the buttons that answer.

The page is served on the loopback address alone and below a path that nobody can guess, so that neither another machine nor
another page in the same browser answers. It needs no JavaScript: it is fetched anew while nothing is asked, and its buttons are
forms.
"""

import ipaddress
import queue
import secrets
import sys
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np

from ooorl.errors import UsageError
from ooorl.training.asking import Question
from ooorl.types import Task

ANSWERS = {'yes': True, 'no': False, 'skip': None}

HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ooorl asks</title>{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 1rem auto; padding: 0 1rem }}
img {{ width: 100%; image-rendering: pixelated; border: 1px solid #ccc }}
form {{ display: flex; flex-wrap: wrap; gap: .6rem }}
button {{ font: inherit; padding: .7rem 1rem; border: 1px solid #888; border-radius: .4rem; background: #f4f4f4; flex: 1 }}
button:focus {{ outline: 3px solid #06c }} code {{ overflow-wrap: anywhere; font-size: .85rem }}
</style></head><body>"""
IDLE = '<h1>Nothing to answer</h1><p>The run goes on; this page looks again every second.</p></body></html>'
ASKING = """<h1>Can this never be taken back?</h1><p>State {state} of {length} of life {life}, seed {seed}.</p>{picture}
<form method="post" action="{base}answer"><input type="hidden" name="number" value="{number}">
<button name="answer" value="yes">It is lost for good</button>
<button name="answer" value="no">It can be taken back</button>
<button name="answer" value="skip">I cannot tell</button></form><p><code>{values}</code></p></body></html>"""


class _Open(NamedTuple):
    """A question that waits for its answer; `number` counts questions, so that an old page cannot answer a new one."""

    number: int
    question: Question
    picture: bytes | None


class Page:
    """An expert, `page(question) -> bool | None`, that waits until somebody presses a button; `url` is where.

    Args:
      task: whose states are shown.
      address: to listen at: a loopback address.
      port: to listen at; 0 takes a free one.
      seconds: to wait for an answer before going on without; None waits for ever.

    Raises:
      UsageError: if the address is reachable from elsewhere, the port is taken, or `bottle` is not installed.
    """

    def __init__(self, task: Task, *, address: str = '127.0.0.1', port: int = 0, seconds: float | None = None):
        _check_loopback(address)
        self._task, self._seconds, self._asked = task, seconds, 0
        self._open, self._answers = None, queue.Queue()
        secret = secrets.token_urlsafe(16)
        try:
            self._server = make_server(address, port, _application(self, f'/{secret}/'), _Server, _Quiet)
        except (OSError, OverflowError) as error:
            raise UsageError(f'--ask web needs a free port of {address}; {port}: {error}; name another one') from None
        host = f'[{address}]' if ':' in address else address
        self.url = f'http://{host}:{self._server.server_port}/{secret}/'
        threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.1}, daemon=True).start()

    def __call__(self, question: Question) -> bool | None:
        self._asked += 1
        self._open = _Open(self._asked, question, _drawn(self._task, question.observation))
        try:
            number, answer = self._answers.get(timeout=self._seconds)
            while number != self._asked:  # of a question that was given up
                number, answer = self._answers.get(timeout=self._seconds)
            return answer
        except queue.Empty:
            return None
        finally:
            self._open = None

    def waiting(self) -> _Open | None:
        """The question that waits, if there is one."""
        return self._open

    def answer(self, number: int, answer: bool | None) -> None:
        """Somebody's answer to question `number`; later ones to the same question change nothing."""
        if self._open is not None and self._open.number == number:
            self._open = None
            self._answers.put((number, answer))

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection: browsers open some ahead and say nothing there for minutes."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """The terminal belongs to the run."""


def _check_loopback(address):
    try:
        fits = ipaddress.ip_address(address).is_loopback
    except ValueError:
        fits = False
    if not fits:
        wanted = "--ask web listens on this machine alone, at '127.0.0.1' or '::1'"
        raise UsageError(f'{wanted}; got {address!r}; forward the port instead')


def _drawn(task, observation):
    """A picture of a state as PNG, where the task can be drawn."""
    if task.render is None:
        return None
    import imageio.v3 as imageio

    return imageio.imwrite('<bytes>', task.render(np.asarray(observation)), extension='.png')


def _application(page, base) -> Callable:
    """The WSGI application: the page, the picture, the answers."""
    try:
        import bottle
    except ImportError:
        raise UsageError("--ask web needs the package bottle; it is not installed; pip install 'ooorl[web]'") from None
    app = bottle.Bottle()

    @app.get(base)
    def shown():
        bottle.response.set_header('Cache-Control', 'no-store')
        asked = page.waiting()
        if asked is None:
            return HEAD.format(refresh='<meta http-equiv="refresh" content="1">') + IDLE
        picture = '' if asked.picture is None else f'<p><img src="{base}{asked.number}.png" alt="the state"></p>'
        question = asked.question
        values = np.array2string(np.asarray(question.observation), precision=3, suppress_small=True)
        return HEAD.format(refresh='') + ASKING.format(
            state=question.number + 1, length=question.length, life=question.life + 1, seed=question.seed,
            picture=picture, base=base, number=asked.number, values=values,
        )  # fmt: skip

    @app.get(f'{base}<number:int>.png')
    def picture(number):
        asked = page.waiting()
        if asked is None or asked.number != number or asked.picture is None:
            return bottle.HTTPError(404)
        bottle.response.content_type = 'image/png'
        return asked.picture

    @app.post(f'{base}answer')
    def answer():
        number, word = bottle.request.forms.get('number', type=int), bottle.request.forms.get('answer')
        if number is None or word not in ANSWERS:
            return bottle.HTTPError(400, 'number and answer are needed')
        page.answer(number, ANSWERS[word])
        return bottle.redirect(base, 303)

    return app


def announced(task: Task, port: int = 0) -> Page:
    """A page whose address is printed."""
    page = Page(task, port=port)
    print(f'questions are answered at {page.url}', file=sys.stderr, flush=True)
    return page

"""Questions in a browser: what the page shows, what its buttons answer, and who else is kept out."""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

from ooorl.envs import make_task
from ooorl.errors import UsageError
from ooorl.runner.browser import Page
from ooorl.runner.interruption import Interrupted, noted, obeying
from ooorl.runner.without_resets import ask_place
from ooorl.training.asking import Question

CLIFFS = make_task('ooorl/PointMassCliffs-v0')
OPTIONS = ('--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe')
QUESTION = Question(3, 0, 1, 4, 9, np.array([0.25, -1.5], np.float32))


@pytest.fixture(scope='module')
def page():
    page = Page(CLIFFS)
    yield page
    page.close()


def _asked(page):
    """Asks in a thread and waits until the question stands on the page; the answer comes out of the queue."""
    answers = queue.Queue()
    threading.Thread(target=lambda: answers.put(page(QUESTION)), daemon=True).start()
    while page.waiting() is None:
        pass
    return answers, page.waiting().number


def _text(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def _press(page, **form):
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(page.url + 'answer', data=data, timeout=30) as response:
        return response.status, response.url


def test_a_connection_that_says_nothing_keeps_nobody_waiting(page):
    """Browsers open some ahead of what they will ask."""
    place = urllib.parse.urlsplit(page.url)
    with socket.create_connection((place.hostname, place.port)), urllib.request.urlopen(page.url, timeout=5) as response:
        assert 'Nothing to answer' in response.read().decode()


def test_each_button_is_an_answer_to_the_question_that_stands_there(page):
    for word, expected in (('yes', True), ('no', False), ('skip', None)):
        answers, number = _asked(page)
        text = _text(page.url)
        assert 'State 5 of 9 of life 2, seed 3.' in text and '[ 0.25 -1.5 ]' in text and 'http-equiv' not in text
        with urllib.request.urlopen(f'{page.url}{number}.png', timeout=30) as picture:
            assert picture.headers['Content-Type'] == 'image/png' and picture.read(4) == b'\x89PNG'
        assert _press(page, number=number - 1, answer='yes') == (200, page.url) and answers.empty()  # a page of the last question
        assert _press(page, number=number, answer=word) == (200, page.url)
        assert answers.get(timeout=60) is expected
        _press(page, number=number, answer='yes')  # pressed twice: the next question is not answered
    assert 'Nothing to answer' in _text(page.url) and 'http-equiv="refresh"' in _text(page.url)


def test_strangers_and_nonsense_are_turned_away(page):
    root = page.url.rsplit('/', 2)[0]
    for url, form, status in (
        (f'{root}/', None, 404), (f'{root}/answer', {'number': 1, 'answer': 'yes'}, 404), (page.url + '99.png', None, 404),
        (page.url + 'answer', {'number': 'x', 'answer': 'yes'}, 400),
        (page.url + 'answer', {'number': 1, 'answer': 'maybe'}, 400),
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(url, data=form and urllib.parse.urlencode(form).encode(), timeout=30)
        assert error.value.code == status, url


def test_it_listens_nowhere_else(page):
    for address in ('0.0.0.0', '', '192.168.0.1', '::', 'localhost.example.org'):
        with pytest.raises(UsageError, match='this machine alone'):
            Page(CLIFFS, address=address)
    with pytest.raises(UsageError, match='free port'):
        Page(CLIFFS, port=int(page.url.split(':')[2].split('/')[0]))
    assert ask_place('web:8123') == ('web', 8123) and ask_place('web') == ('web', 0)
    for text in ('paper', 'web:', 'web:0', 'web:70000', 'terminal:1'):
        with pytest.raises(UsageError, match='--ask takes'):
            ask_place(text)


def test_nobody_there_costs_the_time_that_was_given():
    page = Page(CLIFFS, seconds=0.01)
    assert page(QUESTION) is None and page.waiting() is None
    page.close()


def test_a_signal_ends_the_waiting_and_is_only_noted_elsewhere():
    def wait():
        os.kill(os.getpid(), signal.SIGTERM)
        queue.Queue().get()

    with noted() as caught:
        with pytest.raises(Interrupted) as stop:
            obeying(wait)()
        assert stop.value.number == signal.SIGTERM and caught.number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught.number == signal.SIGTERM


class _Browser:
    """Headless Chromium, spoken to through its own pipe."""

    def __init__(self, program, folder):
        ours, theirs = os.pipe(), os.pipe()
        self.process = subprocess.Popen(
            [program, *OPTIONS, f'--user-data-dir={folder}'], close_fds=False,
            preexec_fn=lambda: (os.dup2(ours[0], 3, True), os.dup2(theirs[1], 4, True)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs[1])
        self.sink, self.source, self.session, self.number = ours[1], os.fdopen(theirs[0], 'rb'), None, 0
        target = self.say('Target.createTarget', url='about:blank')['targetId']
        self.session = self.say('Target.attachToTarget', targetId=target, flatten=True)['sessionId']

    def say(self, method, **parameters):
        self.number += 1
        session = {} if self.session is None else {'sessionId': self.session}
        os.write(self.sink, json.dumps({'id': self.number, 'method': method, 'params': parameters, **session}).encode() + b'\0')
        while True:
            heard = bytearray()
            while not heard.endswith(b'\0'):
                heard += self.source.read(1) or pytest.fail('the browser ended')
            if json.loads(heard[:-1]).get('id') == self.number:
                return json.loads(heard[:-1])['result']

    def value(self, expression):
        return self.say('Runtime.evaluate', expression=expression)['result'].get('value')


@pytest.mark.slow
def test_a_browser_presses_the_buttons(page, tmp_path):
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('needs chromium')
    browser = _Browser(program, tmp_path)
    try:
        browser.say('Page.navigate', url=page.url)
        for word, expected in (('yes', True), ('no', False)):
            answers, _ = _asked(page)
            while not browser.value(f'!!document.querySelector("button[value={word}]") && document.images[0].complete'):
                pass  # the idle page fetches itself anew
            assert browser.value('document.images[0].naturalWidth') > 50
            assert browser.value('document.documentElement.scrollWidth <= window.innerWidth')
            browser.value(f'document.querySelector("button[value={word}]").click()')
            assert answers.get(timeout=60) is expected
    finally:
        browser.process.kill()
        browser.process.wait()

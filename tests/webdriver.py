"""What the checks in a real Chromium share: WebDriver, the example under test, and the list of what passed.

Needs `chromium` and `chromedriver`: `apt-get install chromium chromium-driver`. Everything listens on the loopback
interface.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WRITES = "--write" in sys.argv[1:]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look, seconds=20):
    give_up_at = time.monotonic() + seconds
    last = None
    while time.monotonic() < give_up_at:
        try:
            last = look()
            if last:
                return last
        except (OSError, Failed) as error:
            last = error
        time.sleep(0.2)
    sys.exit(f"timed out while waiting: {what}; last: {last}")


class Failed(Exception):
    """An error of WebDriver."""


class Browser:
    """A Chromium without a window, driven by the `chromedriver` on this port."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        arguments += ["--window-size=1200,900", "--disable-component-update", "--no-first-run"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        session = self.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/{session['sessionId']}"
        self.version = session["capabilities"]["browserVersion"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/session{self.session}{path}", data, method=method)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise Failed(json.load(error)["value"]["message"]) from None

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css):
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        return next(iter(found.values()))

    def click(self, css):
        # A refresh of the page may replace the element.
        for is_last in [False, False, True]:
            try:
                return self.call("POST", f"/element/{self.find(css)}/click", {})
            except Failed as error:
                if is_last or "stale element" not in str(error):
                    raise

    def type(self, css, text):
        element = self.find(css)
        self.call("POST", f"/element/{element}/clear", {})
        self.call("POST", f"/element/{element}/value", {"text": text})

    def press(self, key):
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def log(self):
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def network(self, offline):
        conditions = {"offline": offline, "latency": 0, "download_throughput": -1, "upload_throughput": -1}
        self.call("POST", "/chromium/network_conditions", {"network_conditions": conditions})

    def label(self, css):
        return self.call("GET", f"/element/{self.find(css)}/computedlabel")

    def role(self, css):
        return self.call("GET", f"/element/{self.find(css)}/computedrole")


passed = []


def check(is_so, what):
    if not is_so:
        sys.exit(f"FAILED {what}")
    passed.append(what)
    print(f"ok     {what}", flush=True)


def example(name, features):
    """Returns the path of the binary of an example. EXAMPLE names a binary that is built already."""
    binary = os.environ.get("EXAMPLE")
    if not binary:
        command = ["cargo", "build", "--locked", "--example", name]
        command += ["--features", features] if features else []
        subprocess.run(command, check=True, cwd=ROOT)
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
        binary = os.path.join(target, "debug/examples", name)
    return binary


def run(scenes, result):
    """Calls `scenes(folder, browser)`. With `--write`, writes what passed to `result`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        driver_log = open(os.path.join(folder, "driver"), "w")
        driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=driver_log, stderr=driver_log)
        browser = None
        try:
            until("chromedriver", lambda: socket.create_connection(("127.0.0.1", port)))
            browser = Browser(port)
            scenes(folder, browser)
        finally:
            if browser:
                browser.call("DELETE", "")
            driver.terminate()
            driver.wait()
        text = "\n".join([f"Chromium {browser.version}", "", *(f"ok     {what}" for what in passed), ""])
    if WRITES:
        with open(os.path.join(ROOT, result), "w") as file:
            file.write(text)

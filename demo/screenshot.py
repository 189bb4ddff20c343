"""Makes the pictures of the live page for the documents.

    python -m demo.screenshot docs/page.png

Plays the bundled recording, opens the page in Chromium, and takes its picture. Needs Chromium, its
driver and the test environment.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

RECORDING = Path(__file__).parent / "recording.wav"
ADDRESS = "127.0.0.1:7312"
LISTEN_SECONDS = 9.0


def main() -> int:
    """Run the command and return its exit status."""
    [output] = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kwsd.yaml"
        config.write_text(f"http: {ADDRESS}\nstream: living room\nsource: {RECORDING}\nclips: {{folder: {folder}}}\n")
        socket = Path(folder) / "kwsd.sock"
        command = [sys.executable, "-m", "kwsd", "run", "--quiet", "--config", str(config), "--socket", str(socket)]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while not socket.exists():
                if daemon.poll() is not None:
                    raise SystemExit(f"the daemon has ended; is {ADDRESS} in use?")
                time.sleep(0.05)
            take(output)
        finally:
            daemon.terminate()
            daemon.wait()
    return 0


def take(output: str) -> None:
    """Take a picture of the page after some detections."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1150"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get(f"http://{ADDRESS}/")
        time.sleep(LISTEN_SECONDS)
        browser.save_screenshot(output)
    finally:
        browser.quit()


if __name__ == "__main__":
    sys.exit(main())

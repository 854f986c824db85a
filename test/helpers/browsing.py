"""A real browser without a window."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--autoplay-policy=no-user-gesture-required',
)


def start_browser(folder):
    """A Chromium with its profile in a folder; skips the test where there is none."""
    binary, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if binary is None or driver is None:
        pytest.skip('needs a browser: Debian has it as chromium and chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f'--user-data-dir={folder}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    chromium = webdriver.Chrome(options, Service(driver))
    chromium.set_script_timeout(60)
    return chromium


def resize(chromium, width=1280, scheme='light', height=800):
    """As wide as a telephone or a desk, in light or dark colours."""
    chromium.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600},
    )
    chromium.execute_cdp_cmd(
        'Emulation.setEmulatedMedia',
        {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
    )


def requested(chromium):
    """The addresses that pages have asked for since the last call."""
    messages = [
        json.loads(entry['message'])['message'] for entry in chromium.get_log('performance')
    ]
    return [
        message['params'].get('request', message['params'])['url']
        for message in messages
        if message['method'] in ('Network.requestWillBeSent', 'Network.webSocketCreated')
    ]


def complaints(chromium):
    """What the console has to say since the last call, but for advice.

    Chromium's own page of new tabs complains where there is no network.
    """
    return [
        entry['message']
        for entry in chromium.get_log('browser')
        if entry['source'] != 'recommendation' and not entry['message'].startswith('chrome://')
    ]

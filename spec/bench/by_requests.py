# SPDX-License-Identifier: MIT
"""The workloads of spec/bench/run as one writes them with requests: one session, no checks, limits or
retries. Usage and workloads are those of nymbl.lua."""

import sys
from concurrent.futures import ThreadPoolExecutor

import requests
from requests.adapters import HTTPAdapter

what, count, base_url, ca_file, token = sys.argv[1:6]
file = sys.argv[6] if len(sys.argv) > 6 else None
documents = base_url + "/Patients(1)/Documents"

session = requests.Session()
session.trust_env = False  # a variable would replace `verify`
session.verify = ca_file
session.headers.update({"Authorization": "Bearer " + token, "x-api-key": "key"})
session.mount("https://", HTTPAdapter(pool_maxsize=16))


def checked(response):
    response.raise_for_status()
    return response


def get(_):
    assert checked(session.get(documents + "(doc-1)")).json()["id"]


def page(i):
    query = {"$orderby": "id", "$top": 100, "$skip": i * 100, "$count": "true"}
    rows = checked(session.get(documents, params=query)).json()["value"]
    assert sum(len(row["id"]) + len(row["file_name"]) + row["file_size_bytes"] for row in rows) > 0


def download(_):
    with checked(session.get(documents + "(doc-1)/$value", stream=True)) as response, open(file, "wb") as to:
        for chunk in response.iter_content(65536):
            to.write(chunk)


def upload(_):
    with open(file, "rb") as source:
        files = {"file": ("document.pdf", source, "application/pdf")}
        assert checked(session.post(documents, files=files)).json()["id"]


def cold(_):
    assert checked(session.get(documents + "(doc-2)/$value")).content


def many(i):
    cold(i)


if what == "many":
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(many, range(int(count))))
else:
    for number in range(int(count)):
        globals()[what](number)

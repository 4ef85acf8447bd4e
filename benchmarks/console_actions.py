"""Every action of the console, pressed in Chromium as an operator does, and how long until its effect is shown.

An action that asks whether it is meant has two times: until the question is there, which for many jobs counts them, and from
the yes to the effect. What runs in the background is followed every 2 s, so its time is in steps of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from playwright.sync_api import Locator, Page

from tests.servers import Ragq

PATIENCE_MS = 600_000
OPENINGS = 5  # of what changes nothing
# Presses an element, or changes what it says; returns the ms until a sign with a text is there, in a view opened meanwhile if it `opens` one.
PRESS = """async (element, {value, sign, text, opens, patience}) => {
    const before = document.querySelector('#view > section');
    document.getElementById('state').textContent = '';
    const started = performance.now();
    if (value === null) element.click();
    else { element.value = value; element.dispatchEvent(new Event('change', {bubbles: true})); }
    for (;;) {
        const found = [...document.querySelectorAll(sign)].some((one) => one.textContent.includes(text));
        if (found && (!opens || document.querySelector('#view > section') !== before)) return performance.now() - started;
        await new Promise(requestAnimationFrame);
        if (performance.now() - started > patience)
            throw new Error(`no "${text}" in ${sign}; it says: ${document.getElementById('state').textContent}`);
    }
}"""
ROWS = "#view tbody tr"
STATE = "#state"


@dataclass
class Tour:
    """A page of the console, and what was measured there.

    Attributes:
        views: Times until what is sought or opened is shown, ms, of each time.
        actions: Times until what was done is shown, ms.
        said: What the console said at the end of what was done to all that match.
        faults: What the page logged as errors.
        strangers: Other hosts that it asked.
    """

    page: Page
    views: dict[str, list[float]] = field(default_factory=dict)
    actions: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self, url: str) -> None:
        """Note errors, and requests to others than this address."""
        home = urlsplit(url).netloc
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "request",
            lambda asked: self.strangers.append(asked.url) if urlsplit(asked.url).netloc != home else None,
        )

    def go(self, address: str, sign: str = ROWS) -> None:
        """Open a view, as a place to begin from."""
        self.page.evaluate("location.hash = 'usage'")
        self.page.locator("#view .charts").first.wait_for()
        self.page.evaluate("(address) => { location.hash = address; }", address)
        self.page.locator(sign).first.wait_for()

    def opens(self, name: str, element: Locator, sign: str = ROWS, *, text: str = "", value: str | None = None) -> None:
        """Press or fill in what opens another view."""
        self.views.setdefault(name, []).append(self._press(element, sign, text, value, opens=True))

    def does(self, name: str, element: Locator, sign: str, text: str = "", *, opens: bool = False) -> None:
        """Press what changes something, and perhaps opens another view."""
        self.actions[name] = self._press(element, sign, text, None, opens=opens)

    def asks(self, name: str, element: Locator, sign: str, text: str = "", *, yes: str) -> None:
        """Press what changes something once it is confirmed, with a button whose label begins with `yes`."""
        self.actions[f"{name}: asks"] = self._press(element, "dialog[open]", yes, None, opens=False)
        agree = self.page.get_by_role("dialog").get_by_role("button", name=yes)
        self.does(name, agree, sign, text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def bar(self) -> Locator:
        """The actions on several jobs."""
        return self.page.get_by_role("group", name="Actions")

    def _press(self, element: Locator, sign: str, text: str, value: str | None, *, opens: bool) -> float:
        given = {"value": value, "sign": sign, "text": text, "opens": opens, "patience": PATIENCE_MS}
        return round(float(element.evaluate(PRESS, given, timeout=PATIENCE_MS)), 1)


def search(tour: Tour) -> None:
    """Find jobs by each field and state, and turn a page."""
    tour.go("jobs")
    page = tour.page
    for state in ("Queued", "Running", "Finished", "Failed", "Cancelled", "All"):
        sign = f"{ROWS}, #view .none"
        tour.opens(f"jobs by state: {state}", page.get_by_role("link", name=state, exact=True), sign)
    fields = {
        "text": "harbour number 77",
        "queue": "documents",
        "tenant": "acme",
        "key": "key_7",
        "error_code": "llm_3",
        "within": "3600",
    }
    for name, value in fields.items():
        tour.go("jobs?state=finished" if name != "error_code" else "jobs?state=failed")
        tour.opens(f"jobs by {name}", page.locator(f"#view form [name={name}]"), value=value)
    tour.go("jobs?state=finished")
    tour.does("older jobs", tour.button("Older"), ".pager", "Newer")


def change_queues(tour: Tour) -> None:
    """Pause and resume a queue, and drain a worker, which `ragq up` starts anew."""
    tour.go("queues", "#view article .charts")
    tour.asks("pause a queue", tour.button("Pause documents"), STATE, "paused.", yes="Pause")
    tour.does("resume a queue", tour.button("Resume documents"), STATE, "resumed.")
    tour.go("workers")
    row = tour.page.get_by_role("row").filter(has_text="documents")
    name = row.locator(".name").inner_text()
    tour.asks("drain a worker", tour.button(f"Drain {name}"), STATE, "drains.", yes="Drain")


def change_one(tour: Tour) -> None:
    """Open a job with its timeline, cancel, retry and delete it."""
    tour.go("jobs?state=queued&text=pier")
    tour.opens("a job's timeline", tour.page.locator(f"{ROWS} a").first, ".steps li")
    tour.does("cancel one", tour.button("Cancel"), STATE, "Cancelled.")
    tour.does("retry one", tour.button("Retry"), STATE, "It waits to run again.")
    tour.asks("delete one", tour.button("Delete"), "form[aria-label='Search jobs']", yes="Delete")


def change_selected(tour: Tour) -> None:
    """Cancel, retry and delete two jobs that are ticked."""
    steps = {"cancel": ("Cancel", "queued"), "retry": ("Retry", "canceled"), "delete": ("Delete", "queued")}
    for name, (verb, state) in steps.items():
        tour.go(f"jobs?state={state}&text=pier")
        for place in (0, 1):
            tour.page.locator(ROWS).nth(place).get_by_role("checkbox").check()
        tour.asks(f"{name} 2 selected", tour.bar.get_by_role("button", name=verb), STATE, "2 jobs", yes=f"{verb} 2")


def change_all(tour: Tour) -> None:
    """Cancel and retry all that wait, and delete a tenant's finished jobs."""
    steps = (
        ("cancel", "Cancel", "jobs?state=queued&text=pier", "cancelled."),
        ("retry", "Retry", "jobs?state=canceled&text=pier", "run again."),
        ("delete", "Delete", "jobs?state=finished&tenant=acme", "deleted."),
    )
    for name, verb, address, text in steps:
        tour.go(address)
        tour.asks(f"{name} all that match", tour.bar.get_by_role("button", name=verb), STATE, text, yes=f"{verb} ")
        tour.said[name] = tour.page.locator(STATE).inner_text()


def change_documents(tour: Tour, service: Ragq) -> None:
    """Forgive a file that crashed the parser, read it again, and remove it."""
    content = b"The mole of Varn is long.\n"
    with psycopg.connect(service.services["database_url"]) as connection:
        connection.execute(
            "INSERT INTO poison (sha256, code, reason) VALUES (%s, 'parser_crashed', 'It crashed.')",
            [hashlib.sha256(content).hexdigest()],
        )
    path = Path(service.folder).parent / "mole.md"
    path.write_bytes(content)
    service.run("ingest", str(path))
    tour.go("documents?status=failed")
    tour.does("forgive a file", tour.button("Forgive mole.md"), "section[aria-label=Poison]", "No file is poison.")
    tour.does("read a document again", tour.button("Read mole.md again"), STATE, "is read again.")
    tour.go("documents")
    tour.asks("remove a document", tour.button("Remove mole.md"), STATE, "was removed.", yes="Remove")


def change_accounts(tour: Tour) -> None:
    """Make a tenant and a key, rotate and revoke the key, suspend, resume and delete the tenant."""
    page = tour.page

    def fill(dialog: str, **values: str) -> Locator:
        shown = page.get_by_role("dialog", name=dialog)
        for label, value in values.items():
            shown.get_by_label(label.replace("_", " ")).fill(value)
        return shown

    tour.go("tenants")
    tour.does("new tenant: asks", tour.button("New tenant"), "dialog[open]", "New tenant")
    made = fill("New tenant", Name="larch").get_by_role("button", name="Create")
    tour.does("new tenant", made, "#view .none", opens=True)
    tour.does("new key: asks", tour.button("New key"), "dialog[open]", "New key")
    tour.does("new key", fill("New key", Name="a laptop").get_by_role("button", name="Create"), "dialog[open]", "Copy")
    page.keyboard.press("Escape")
    tour.does("rotate a key: asks", tour.button("Rotate a laptop"), "dialog[open]", "Rotate a laptop?")
    rotate = page.get_by_role("dialog").get_by_role("button", name="Rotate")
    tour.does("rotate a key", rotate, "dialog[open]", "Copy")
    page.keyboard.press("Escape")
    tour.asks("revoke a key", tour.button("Revoke a laptop"), STATE, "was revoked.", yes="Revoke")
    tour.go("tenants")
    tour.asks("suspend a tenant", tour.button("Suspend larch"), ROWS, "suspended", yes="Suspend")
    tour.does("resume a tenant", tour.button("Resume larch"), "button[aria-label='Suspend larch']")
    tour.does("delete a tenant: asks", tour.button("Delete larch"), "dialog[open]", "Delete larch?")
    gone = fill("Delete larch?", Type_larch_to_delete_it="larch").get_by_role("button", name="Delete")
    tour.does("delete a tenant", gone, STATE, "is being deleted.")


def read_accounts(tour: Tour) -> None:
    """Look at one tenant's usage, keys and entries of the audit log."""
    filled: tuple[tuple[str, str, str, str], ...] = (
        ("usage", "tenant", "acme", "#view .charts"),
        ("audit", "event_types", "queue.paused", ROWS),
        ("audit", "tenant", "larch", ROWS),
    )
    for view, name, value, sign in filled:
        tour.go(view, "#view .charts" if view == "usage" else ROWS)
        tour.opens(f"{view} by {name}", tour.page.locator(f"#view form [name={name}]"), sign, value=value)


def tour_console(page: Page, service: Ragq) -> Tour:
    """Do everything that the console offers, on a service that `console.py` has filled."""
    tour = Tour(page)
    tour.watch(service.url)
    parts: tuple[Callable[[Tour], None], ...] = (
        search,
        change_queues,
        change_one,
        change_selected,
        change_all,
        change_accounts,
        read_accounts,
    )
    for part in parts:
        for _ in range(OPENINGS if part in (search, read_accounts) else 1):
            part(tour)
    change_documents(tour, service)
    return tour

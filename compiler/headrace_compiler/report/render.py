"""The report of a build: one self-contained page, `report.html`."""

from headrace_compiler.report.batches import batches
from headrace_compiler.report.candidates import candidates
from headrace_compiler.report.document import contents, document
from headrace_compiler.report.layers import layers
from headrace_compiler.report.origin import origin
from headrace_compiler.report.picture import picture
from headrace_compiler.report.report import Report
from headrace_compiler.report.text import plain
from headrace_compiler.report.verdict import head


def render_report(report: Report) -> str:
    """The page: what came of the build, the evidence for it, and what it stood on."""
    measurement = report.measurement
    parts = (
        ("picture", "Picture", picture(measurement)),
        ("batches", "Batches", batches(report)),
        ("candidates", "Candidates", candidates(report)),
        ("layers", "Layers", layers(measurement)),
        ("lineage", "Lineage", origin(report)),
    )
    shown = [(part, name) for part, name, markup in parts if markup]
    body = [head(report), contents("Parts", shown), *(markup for _, _, markup in parts)]
    return document(f"{plain(report.title, 160)}: headrace compile", body)

"""The files for those who watch a server, run by their own programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbauth.audit.events import KINDS, encode
from pbauth.cli.units import readFile

#: Names by which a client might accuse somebody else.
_HOSTILE = [
    "alice",
    'x","host":"198.51.100.1","port":1,"connection":"00"}',
    'x","host":"198.51.100.1"}\n{"time":"2026-03-01T12:00:00.250000Z","event":"login.refused"',
    'x\\","host":"198.51.100.1","port":1,"connection":"00"}',
    '{"time":"2026-03-01T12:00:00.250000Z","event":"login.refused","host":"198.51.100.1"',
    "\\",
    '"',
    "198.51.100.1",
    "\u202e\u2028",
]

_WHEN = 1772366400.25

_ALERTS = """
rule_files: [pbauth.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'pbauth_logins_total{instance="a",outcome="refused"}', values: '0+60x30'}
      - {series: 'pbauth_logins_total{instance="a",outcome="throttled"}', values: '0+60x30'}
      - {series: 'pbauth_logins_total{instance="b",outcome="accepted"}', values: '0+600x30'}
      - {series: 'pbauth_login_seconds_bucket{instance="a",le="1"}', values: '0+1x30'}
      - {series: 'pbauth_login_seconds_bucket{instance="a",le="5"}', values: '0+60x30'}
      - {series: 'pbauth_login_seconds_bucket{instance="a",le="+Inf"}', values: '0+60x30'}
      - {series: 'pbauth_login_seconds_bucket{instance="b",le="1"}', values: '0+60x30'}
      - {series: 'pbauth_login_seconds_bucket{instance="b",le="+Inf"}', values: '0+60x30'}
      - {series: 'pbauth_accounts_reachable{instance="a"}', values: '0x30'}
      - {series: 'pbauth_accounts_reachable{instance="b"}', values: '1x30'}
      - {series: 'pbauth_changes_heard{instance="a"}', values: '0x30'}
      - {series: 'pbauth_changes_heard{instance="b"}', values: '1x30'}
      - series: 'pbauth_certificate_expiry_timestamp_seconds{instance="a",port="ssl:8787"}'
        values: '1200000x30'
      - series: 'pbauth_certificate_expiry_timestamp_seconds{instance="b",port="ssl:8787"}'
        values: '9000000x30'
    alert_rule_test:
"""
_ALERT = """
      - alertname: {name}
        eval_time: 25m
        exp_alerts: [{{exp_labels: {labels}, exp_annotations: {{summary: "{summary}"}}}}]
"""


class FilterTests(SynchronousTestCase):
    """The filter of fail2ban."""

    if shutil.which("fail2ban-regex") is None:
        skip = "fail2ban is missing. On Debian: apt install fail2ban"

    def hosts(self, lines: bytes) -> list[str]:
        """The hosts that fail2ban finds."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "audit.jsonl").write_bytes(lines)
        (folder / "pbauth.conf").write_text(readFile("fail2ban"))
        found = subprocess.run(
            [
                *("fail2ban-regex", "--out", "ip"),
                *(str(folder / "audit.jsonl"), str((folder / "pbauth.conf").absolute())),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return found.stdout.split()

    def test_lines(self) -> None:
        """Failed logins count, whatever name was claimed, for those who made them."""
        lines, expected = [], []
        for number, name in enumerate(_HOSTILE, 1):
            host = f"192.0.2.{number}" if number % 2 else f"2001:db8::{number}"
            event = {
                **{"identity": name, "mechanism": name, "reason": "wrong password"},
                **{"retryAfter": 2.5, "host": host, "port": 50522, "connection": "b1ffbf39"},
            }
            for kind in ("login.refused", "login.throttled", "login.accepted", "user.locked"):
                lines.append(encode(KINDS[kind], _WHEN, {**event, "operator": name}))
            expected += [host, host]
        local = {"identity": "alice", "mechanism": "SCRAM-SHA-256", "host": "unix"}
        lines.append(encode(KINDS["login.refused"], _WHEN, local))
        self.assertEqual(self.hosts(b"".join(lines)), expected)


class RuleTests(SynchronousTestCase):
    """The rules of Prometheus."""

    if shutil.which("promtool") is None:
        skip = "promtool is missing. On Debian: apt install prometheus"

    def test_alerts(self) -> None:
        """Each rule is about the server that is not well, and not about the other one."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "pbauth.rules.yml").write_text(readFile("prometheus"))
        text = _ALERTS
        for name, summary in {
            "PbauthPasswordsAreGuessed": "More than one login a second fails on a.",
            "PbauthLoginsAreSlow": "One login in ten takes longer than 2.5 seconds on a.",
            "PbauthAccountsUnreachable": "a can't read its accounts: nobody can log in.",
            "PbauthChangesNotHeard": "a does not hear of changes to accounts at once.",
            "PbauthCertificateExpires": "The certificate of ssl:8787 on a "
            "expires within two weeks.",
        }.items():
            port = ", port: 'ssl:8787'" if "Certificate" in name else ""
            text += _ALERT.format(name=name, summary=summary, labels=f"{{instance: a{port}}}")
            self.assertIn(f"alert: {name}\n", readFile("prometheus"))
        (folder / "test.yml").write_text(text)
        checked = subprocess.run(
            ["promtool", "test", "rules", "test.yml"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertEqual(readFile("prometheus").count("alert: "), 5)

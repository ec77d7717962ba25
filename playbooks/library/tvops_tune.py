"""Ansible module: calls `tvops tune … --json` and maps its exit codes to changed, ok and failed."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tvops_tune
short_description: Tune a host with tvops, verify it, roll it back
description: Supports check mode and diff mode. Needs tvops on the target.
options:
  state:
    description: What to bring about. `verified` changes nothing and fails where something has drifted.
    choices: [applied, verified, rolled_back, persisted, unpersisted]
    default: applied
    type: str
  profile:
    description: Profile by name, or a profile file on the target. Not needed to roll back.
    type: str
  run:
    description: With `rolled_back`, the run to undo; without it the last one.
    type: str
  only: {description: Knobs, kinds or patterns to keep to., type: list, elements: str, default: []}
  skip: {description: Knobs, kinds or patterns to leave out., type: list, elements: str, default: []}
  set: {description: "Values instead of the profile's, as ID: VALUE.", type: dict, default: {}}
  redis: {description: "Servers by role, as ROLE: URL without a password.", type: dict, default: {}}
  risk_max: {description: Highest risk to take., choices: [safe, disruptive, dangerous], type: str}
  recover: {description: What to do with a run that was interrupted., choices: [undo, finish], type: str}
  force: {description: Do what would be refused., type: bool, default: false}
  root: {description: A tree of files to act on instead of the host., type: path}
  tvops: {description: The program., type: path, default: tvops}
"""

RETURN = """
verdict: {description: What tvops says of the host in one word., type: str, returned: always}
exit_code: {description: Exit code of tvops., type: int, returned: always}
counts: {description: Number of settings by state., type: dict, returned: always}
reboot_required: {description: Whether a reboot or a restart is pending., type: bool, returned: always}
run: {description: Id of the run; it names what to roll back., type: str, returned: when something was written}
differing: {description: The settings that differ., type: list, returned: always}
"""

MET, FAILED, USAGE, PENDING, UNSUPPORTED, PRIVILEGE, REBOOT, INCOMPLETE = range(8)
FAILURES = {
    FAILED: "a required setting failed, and everything was rolled back",
    USAGE: "wrong usage",
    PRIVILEGE: "needs privilege: run it with become",
    INCOMPLETE: "a rollback could not restore everything",
}
DIFFERENT = ("pending", "privilege", "restart", "reboot", "serve")


def build_command(values: dict[str, Any], check: bool) -> list[str]:
    """Give the command line for the module's arguments."""
    verbs = {"applied": [], "verified": ["verify"], "rolled_back": ["rollback"],
             "persisted": ["persist"], "unpersisted": ["unpersist"]}  # fmt: skip
    state = values["state"]
    command = [values["tvops"], "tune", *verbs[state]]
    if state == "rolled_back":
        command += [values["run"]] if values["run"] else []
    elif state != "unpersisted":
        command += ["--profile", values["profile"]]
    if state in ("applied", "verified"):
        for option, key in (("--only", "only"), ("--skip", "skip")):
            command += [word for value in values[key] for word in (option, value)]
        command += ["--risk-max", values["risk_max"]] if values["risk_max"] else []
    if state in ("applied", "verified", "persisted"):
        command += [word for item in values["set"].items() for word in ("--set", "{}={}".format(*item))]
    if state in ("applied", "verified", "rolled_back"):
        command += [word for item in values["redis"].items() for word in ("--redis", "{}={}".format(*item))]
    command += ["--recover", values["recover"]] if values["recover"] and state == "applied" else []
    command += ["--root", values["root"]] if values["root"] else []
    command += ["--force"] if values["force"] and state != "verified" else []
    if state != "verified":
        command += ["--check"] if check else ["--yes"]
    return [*command, "--json"]


def diff_of(items: list[dict[str, Any]]) -> dict[str, str]:
    """Give what Ansible shows with --diff."""
    changed = [
        i for i in items if i.get("outcome") == "written" or (i.get("state") == "pending" and not i.get("outcome"))
    ]
    before = "".join(f"{i['id']} = {i['before'] if i.get('outcome') else i['current']}\n" for i in changed)
    after = "".join(f"{i['id']} = {i['value']}\n" for i in changed)
    return {"before": before, "after": after}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "default": "applied",
                "choices": ["applied", "verified", "rolled_back", "persisted", "unpersisted"],
            },
            "profile": {"type": "str"},
            "run": {"type": "str"},
            "only": {"type": "list", "elements": "str", "default": []},
            "skip": {"type": "list", "elements": "str", "default": []},
            "set": {"type": "dict", "default": {}},
            "redis": {"type": "dict", "default": {}},
            "risk_max": {"choices": ["safe", "disruptive", "dangerous"]},
            "recover": {"choices": ["undo", "finish"]},
            "force": {"type": "bool", "default": False},
            "root": {"type": "path"},
            "tvops": {"type": "path", "default": "tvops"},
        },
        required_if=[("state", state, ["profile"]) for state in ("applied", "verified", "persisted")],
        supports_check_mode=True,
    )
    state = module.params["state"]
    code, out, err = module.run_command(build_command(module.params, module.check_mode))
    said = " ".join(err.split()).removeprefix("tvops: ")
    try:
        report = json.loads(out) if out.strip() else {}
    except ValueError:
        module.fail_json(msg=f"tvops printed no JSON: {out[:200]!r} {said}", exit_code=code)
    items = report.get("items", [])
    result = {
        "exit_code": code,
        "verdict": report.get("verdict", ""),
        "counts": report.get("counts", {}),
        "run": report.get("run", ""),
        "reboot_required": code == REBOOT,
        "differing": [i["id"] for i in items if i.get("state") in DIFFERENT and not i.get("outcome")],
        "diff": diff_of(items),
    }
    if code in FAILURES or code > INCOMPLETE or code < 0:
        module.fail_json(msg=said or FAILURES.get(code, f"tvops ended with exit code {code}"), **result)
    if state == "verified" and code == PENDING:
        module.fail_json(msg="has drifted: " + ", ".join(result["differing"]), **result)
    if code == UNSUPPORTED:
        module.warn("some settings are not supported on this host; tvops tune --check lists them")
    changed = (
        code == PENDING
        if module.check_mode
        else any(
            report.get("counts", {}).get(word) for word in ("written", "restored", "created", "changed", "removed")
        )
    )
    module.exit_json(changed=bool(changed), **result)


if __name__ == "__main__":
    main()

# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as a whole: metadata against its schemas, roles and plugins complete, nothing foreign in it."""

from __future__ import annotations

import ast
import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import jsonschema
import pytest
import yaml

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
ROLES = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(ROOT, "roles", "*", "")))
# patterns in pieces, so that this file does not contain what it looks for
FORBIDDEN = re.compile("|".join([
    r"(?:^|[^.\w])/(?:work|farm)/",  # folders of a building machine
    r"\." + "library",
    "deb" + r"\.debian" + r"\.org",  # hosts of package registries: the machine's own configuration names them
    "py" + r"pi\.org",
    "registry" + r"\.npm" + "js",
]), re.MULTILINE)


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


def load(*parts):
    return yaml.safe_load(read(*parts))


def found(pattern):
    """Paths relative to the checkout."""
    return sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, pattern), recursive=True))


def own_files():
    """What git holds or would hold; everything else is what the commands have made."""
    if not shutil.which("git") or not os.path.exists(os.path.join(ROOT, ".git")):
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            stdout=subprocess.PIPE).stdout.decode().split("\0")
    return sorted(path for path in listed if path and os.path.isfile(os.path.join(ROOT, path)))


# schemas

def schema_errors(name, document):
    """Check against one of the schemas that ansible-lint brings."""
    folder = os.path.dirname(importlib.util.find_spec("ansiblelint").origin)
    with open(os.path.join(folder, "schemas", name + ".json"), encoding="utf-8") as file:
        schema = json.load(file)
    validator = jsonschema.validators.validator_for(schema)(schema)
    return ["%s: %s" % ("/".join(map(str, error.absolute_path)), error.message)
            for error in validator.iter_errors(document)]


SCHEMAS = (
    [("galaxy", "galaxy.yml"), ("meta-runtime", "meta/runtime.yml"), ("requirements", "requirements.yml"),
     ("changelog", "changelogs/changelog.yaml"), ("ansible-lint-config", ".ansible-lint")]
    + [("meta", "roles/%s/meta/main.yml" % role) for role in ROLES]
    + [("role-arg-spec", "roles/%s/meta/argument_specs.yml" % role) for role in ROLES]
)


@pytest.mark.parametrize("schema, path", SCHEMAS)
def test_metadata_follows_its_schema(schema, path):
    assert schema_errors(schema, load(path)) == []


def test_the_schemas_can_refuse():
    assert schema_errors("galaxy", dict(load("galaxy.yml"), version="one"))
    assert schema_errors("meta-runtime", {"requires_ansible": 2})
    assert schema_errors("role-arg-spec", {"argument_specs": {"main": {"options": {"a": {"type": "strange"}}}}})


def test_galaxy_names_files_that_exist():
    galaxy = load("galaxy.yml")
    for key in ("readme", "license_file"):
        assert os.path.isfile(os.path.join(ROOT, galaxy[key])), galaxy[key]
    assert galaxy["dependencies"] == {} and load("requirements.yml")["collections"] == []


def test_execution_environment_names_a_file_that_exists():
    assert os.path.isfile(os.path.join(ROOT, load("meta/execution-environment.yml")["dependencies"]["python"]))


def test_one_floor_for_ansible():
    floor = re.fullmatch(r">=(\d+\.\d+)\.0", load("meta/runtime.yml")["requires_ansible"]).group(1)
    assert "ansible-core>=%s\n" % floor in read("requirements.txt")
    for role in ROLES:
        assert load("roles", role, "meta", "main.yml")["galaxy_info"]["min_ansible_version"] == floor, role


# roles

@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_and_argument_specs_say_the_same(role):
    defaults = {}
    if os.path.exists(os.path.join(ROOT, "roles", role, "defaults", "main.yml")):
        defaults = load("roles", role, "defaults", "main.yml") or {}
    options = {}
    for entry in load("roles", role, "meta", "argument_specs.yml")["argument_specs"].values():
        options.update(entry.get("options") or {})
    assert sorted(defaults) == sorted(name for name, option in options.items() if not option.get("required"))
    assert {name: options[name].get("default") for name in defaults} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_role_variables_carry_the_roles_name(role):
    for name in load("roles", role, "defaults", "main.yml") or {}:
        assert name.startswith(role + "_"), name


@pytest.mark.parametrize("role", ROLES)
def test_role_is_complete(role):
    for path in ("README.md", "tasks/main.yml", "meta/main.yml", "meta/argument_specs.yml"):
        assert os.path.isfile(os.path.join(ROOT, "roles", role, path)), path
    for name, entry in load("roles", role, "meta", "argument_specs.yml")["argument_specs"].items():
        assert entry.get("short_description"), name
        for option, spec in (entry.get("options") or {}).items():
            assert spec.get("description"), option


# plugins

def constants(path):
    """The string constants that a plugin file assigns at its top level, such as DOCUMENTATION."""
    assigned = [node for node in ast.parse(read(path)).body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {target.id: node.value.value for node in assigned for target in node.targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("path", found("plugins/modules/*.py") + found("plugins/filter/*.py"))
def test_plugin_is_documented(path):
    texts = constants(path)
    name = os.path.splitext(os.path.basename(path))[0]
    for part in ("DOCUMENTATION", "EXAMPLES", "RETURN"):
        assert yaml.safe_load(texts.get(part, "")), part
    documentation = yaml.safe_load(texts["DOCUMENTATION"])
    assert documentation["module" if "/modules/" in path else "name"] == name
    assert documentation["version_added"] and documentation["author"] and documentation["short_description"]
    assert "vfio.host." + name in texts["EXAMPLES"]
    if "/modules/" in path:
        assert "vfio.host.attributes" in str(documentation["extends_documentation_fragment"])


def test_module_utils_are_private():
    for path in found("plugins/module_utils/*"):
        name = os.path.basename(path)
        assert name.startswith("_"), path
    for path in found("plugins/module_utils/**/*.py"):
        empty = os.path.getsize(os.path.join(ROOT, path)) == 0
        assert empty or "Private to the vfio.host collection" in read(path), path


# every file

def test_python_files_carry_their_licence():
    for path in own_files():
        if path.endswith(".py") and os.path.getsize(os.path.join(ROOT, path)):
            assert "SPDX-License-Identifier: GPL-3.0-or-later" in read(path)[:400], path


def test_no_word_that_belongs_to_a_building_machine():
    hits = []
    for path in own_files():
        with open(os.path.join(ROOT, path), "rb") as file:
            data = file.read()
        if b"\0" not in data[:8000]:
            hits += ["%s: %s" % (path, match.group()) for match in FORBIDDEN.finditer(data.decode("utf-8", "replace"))]
    assert hits == []


@pytest.mark.parametrize("text", [
    "see /" + "work/main", "http://deb" + ".debian.org/", "\n/" + "farm/x", "a." + "library",
])
def test_the_forbidden_words_are_found(text):
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("text", ["a/work/b", "network/farm/", "./work/", "a library", "debian.org", "homework/"])
def test_other_words_are_not(text):
    assert not FORBIDDEN.search(text)


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in own_files():
        if path.endswith(".md"):
            text = re.sub(r"```.*?```", "", read(path), flags=re.DOTALL)
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
                place = os.path.join(ROOT, os.path.dirname(path), target)
                if not re.match(r"[a-z]+:", target) and not os.path.exists(place):
                    broken.append("%s: %s" % (path, target))
    assert broken == []


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    """Names of the files in the built collection."""
    place = tmp_path_factory.mktemp("build")
    galaxy = os.path.join(os.path.dirname(sys.executable), "ansible-galaxy")
    subprocess.run([galaxy, "collection", "build", "--output-path", str(place)], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL, env=dict(os.environ, ANSIBLE_HOME=str(place / "home")))
    with tarfile.open(glob.glob(str(place / "*.tar.gz"))[0]) as archive:
        return sorted(member.name for member in archive.getmembers() if member.isfile())


def test_tarball_holds_the_collection_and_nothing_that_was_made_here(tarball):
    assert {"meta/runtime.yml", "README.md", "LICENSE", "MANIFEST.json"} <= set(tarball)
    for folder in ("plugins", "roles", "playbooks"):
        kept = {path for path in own_files() if path.startswith(folder + "/")}
        assert kept <= set(tarball)
    assert set(tarball) - set(own_files()) == {"MANIFEST.json", "FILES.json"}


def test_tarball_leaves_out_what_only_a_checkout_needs(tarball):
    assert [path for path in tarball if path.startswith(".")] == []

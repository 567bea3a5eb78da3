"""The Kubernetes manifests: valid by Kubernetes' own schemas, restricted, and consistent with each other."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from authsvc.cli.serve import serve_command
from authsvc.settings import from_environment
from tests.deploy.shipped import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.34", kubernetes_validate.latest_version())
LISTENERS = {"api": 8080, "broker": 8070}
EVERY_LISTENER = pytest.mark.parametrize("listener", LISTENERS)


def resources() -> list[dict[str, Any]]:
    """Return every resource that the kustomization names."""
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    files = [(MANIFESTS / name).read_text() for name in kustomization["resources"]]
    return [each for text in files for each in yaml.safe_load_all(text)]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in resources() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(listener: str) -> dict[str, Any]:
    spec: dict[str, Any] = named("Deployment", f"authsvc-{listener}")["spec"]["template"]["spec"]
    return spec


def container(listener: str) -> dict[str, Any]:
    (only,) = pod(listener)["containers"]
    return dict(only)


def labels(listener: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "authsvc", "app.kubernetes.io/component": listener}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_valid(version: str) -> None:
    for resource in resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_schemas_refuse_an_unknown_field() -> None:
    resource = named("Deployment", "authsvc-api")
    resource["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource, VERSIONS[0], strict=True)


def test_the_kustomization_has_every_file() -> None:
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    assert {path.name for path in MANIFESTS.glob("*.yaml")} == {*kustomization["resources"], "kustomization.yaml"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_builds_the_kustomization_with_a_real_image() -> None:
    done = subprocess.run(["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, check=True)
    built = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "Deployment"]
    images = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in built}
    assert images == {"registry.example/authsvc:0.1.0"}


@EVERY_LISTENER
def test_pod_runs_one_listener_with_the_least_rights(listener: str) -> None:
    spec, one = pod(listener), container(listener)
    group, *arguments = one["args"]
    assert group == "serve"
    assert serve_command.make_context("serve", arguments).params == {"only": listener}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "or AUTHSVC_API_PORT stops the start"
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert f"--uid {spec['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


@EVERY_LISTENER
def test_probes_ask_the_pods_own_listener(listener: str) -> None:
    one = container(listener)
    (port,) = one["ports"]
    assert port == {"name": "http", "containerPort": LISTENERS[listener]}
    paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        assert one[probe]["httpGet"] == {"path": path, "port": "http"}


@EVERY_LISTENER
def test_service_policy_and_budget_select_the_pods(listener: str) -> None:
    deployment = named("Deployment", f"authsvc-{listener}")["spec"]
    assert deployment["selector"]["matchLabels"] == labels(listener) == deployment["template"]["metadata"]["labels"]
    assert named("Service", f"authsvc-{listener}")["spec"]["selector"] == labels(listener)
    assert named("NetworkPolicy", f"authsvc-{listener}")["spec"]["podSelector"]["matchLabels"] == labels(listener)
    budget = named("PodDisruptionBudget", f"authsvc-{listener}")["spec"]
    assert budget["selector"]["matchLabels"] == labels(listener)
    assert 0 < budget["minAvailable"] < deployment["replicas"]
    (rule,) = named("NetworkPolicy", f"authsvc-{listener}")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [LISTENERS[listener]]


def test_settings_are_known_and_secrets_come_from_files(tmp_path: Any) -> None:
    given = dict(named("ConfigMap", "authsvc")["data"])
    mounts = {mount["mountPath"] for mount in container("api")["volumeMounts"]}
    for name in [name for name in given if name.endswith("_FILE")]:
        directory, _, file = given[name].rpartition("/")
        assert directory in mounts
        (tmp_path / file).write_text("postgresql://authsvc:secret@db/authsvc" if file == "database_url" else "secret")
        given[name] = str(tmp_path / file)
    settings = from_environment(given)
    assert settings.database_url.startswith("postgresql:")
    assert settings.webhook_secret
    assert [settings.bind, settings.broker_bind] == ["0.0.0.0:8080", "0.0.0.0:8070"]


def test_everything_is_denied_that_no_policy_allows() -> None:
    denied = named("NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
